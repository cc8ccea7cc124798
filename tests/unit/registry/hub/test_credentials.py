"""Tokens are handed out, told apart, renewed, and never shown."""

import logging
import pickle
import traceback
from pathlib import Path

import pytest
import structlog
from slipway_registry.hub.credentials import ANONYMOUS, Credential, CredentialKind, Credentials, Secret
from slipway_service.fault import Fault, Reason

TOKEN = "hf_SecretOfTheService"
OTHER = "hf_SecretOfACaller"


def write(file: Path, content: str) -> None:
    """As a rotation does it: another file under the same name."""
    fresh = file.with_suffix(".new")
    fresh.write_text(content)
    fresh.replace(file)


def test_without_a_token_requests_are_anonymous(tmp_path: Path) -> None:
    assert Credentials().service() is ANONYMOUS
    assert Credentials(token_file=tmp_path / "none").service() is ANONYMOUS
    assert Credentials(token="  ").service() is ANONYMOUS
    assert ANONYMOUS.token is None


def test_the_token_is_before_the_file(tmp_path: Path) -> None:
    write(tmp_path / "token", OTHER)
    assert Credentials(TOKEN, tmp_path / "token").service().token == TOKEN


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    credentials = Credentials(token_file=file)
    assert credentials.service() is ANONYMOUS
    write(file, f"{TOKEN}\n")
    first = credentials.service()
    assert (first.kind, first.token) == (CredentialKind.SERVICE, TOKEN)
    assert credentials.service() is first
    write(file, OTHER)
    assert credentials.service().token == OTHER
    file.unlink()
    assert credentials.service() is ANONYMOUS


@pytest.mark.parametrize("content", ["two words", "hf_\x01", "x" * 600, "hf_ü"])
def test_a_file_without_a_token_is_the_operators_to_mend(tmp_path: Path, content: str) -> None:
    write(tmp_path / "token", content)
    with pytest.raises(Fault) as caught:
        Credentials(token_file=tmp_path / "token").service()
    assert caught.value.reason is Reason.SERVICE_CREDENTIAL_INVALID
    assert content not in str(caught.value)


def test_a_file_that_is_a_directory_is_too(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cannot be read"):
        Credentials(token_file=tmp_path).service()


def test_a_call_may_bring_its_own() -> None:
    credentials = Credentials(TOKEN)
    own = credentials.of_call(OTHER)
    assert (own.kind, own.token) == (CredentialKind.CALLER, OTHER)
    assert credentials.of_call(None) == credentials.of_call("") == credentials.service()


@pytest.mark.parametrize("token", ["two words", "hf_x\r\nHost: evil", "hf_\x00", "x" * 513, "hf_ü"])
def test_what_no_token_looks_like_is_refused(token: str) -> None:
    with pytest.raises(Fault) as caught:
        Credentials().of_call(token)
    assert caught.value.reason is Reason.CREDENTIAL_INVALID
    assert token not in str(caught.value)


def test_credentials_are_equal_when_token_and_owner_are() -> None:
    credentials = Credentials(TOKEN)
    assert credentials.of_call(OTHER) == credentials.of_call(OTHER)
    assert credentials.of_call(OTHER) != credentials.of_call(TOKEN)
    assert credentials.of_call(TOKEN) != credentials.service()
    assert Credentials(TOKEN).service().key != credentials.service().key  # the hash is keyed by this process


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        ({"HF_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "b"}, "a"),
        ({"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "b"}, "b"),
        ({}, "in-home"),
        ({"HF_TOKEN_PATH": "{tmp}/elsewhere"}, "in-elsewhere"),
    ],
)
def test_they_are_found_where_huggingface_hub_finds_them(
    tmp_path: Path, environment: dict[str, str], token: str
) -> None:
    (tmp_path / "token").write_text("in-home")
    (tmp_path / "elsewhere").write_text("in-elsewhere")
    environment = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    assert Credentials.from_environment(environment, tmp_path).service().token == token


def test_nothing_shows_a_token(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    credential = Credentials(TOKEN).service()
    holder = {"credential": credential, "nested": [credential.secret]}
    shown = [repr(credential), str(credential), f"{credential}", repr(holder), str(credential.secret), credential.key]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%r %s", credential, credential.secret)
    structlog.get_logger().info("event", credential=credential, secret=credential.secret)
    try:
        raise RuntimeError(credential)
    except RuntimeError:
        shown.append(traceback.format_exc())
    shown += [caplog.text, capsys.readouterr().out]
    assert TOKEN not in "".join(shown)


def test_a_secret_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="not to be written"):
        pickle.dumps(Secret(TOKEN))
    with pytest.raises(TypeError, match="not to be written"):
        pickle.dumps(Credential(kind=CredentialKind.CALLER, key="k", secret=Secret(TOKEN)))
