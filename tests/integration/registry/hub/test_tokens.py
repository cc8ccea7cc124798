"""Tokens go to the Hub and nowhere else, and answers stay with those who may see them."""

import logging
from collections.abc import Iterator
from functools import partial

import pytest
from huggingface_hub import get_session
from slipway_registry.hub.credentials import Credentials
from slipway_registry.hub.errors import Subject
from slipway_registry.hub.session import HubSession
from slipway_service.fault import Reason
from slipway_service.weights.names import FilePath

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio

ANN, BOB = "hf_TokenOfAnn", "hf_TokenOfBob"
REPO = "org/private"


@pytest.fixture
def private(hub: HubEmulator) -> HubEmulator:
    hub.add_repo(REPO, {"m.gguf": Random(5000), "config.json": "{}"}, private=True)
    hub.add_user("ann", ANN, {REPO})
    hub.add_user("bob", BOB)
    return hub


async def test_an_answer_for_one_is_no_answer_for_another(private: HubEmulator, client: HubClient) -> None:
    credentials = Credentials(BOB)
    assert (await client.tree(REPO, credential=credentials.of_call(ANN))).files
    assert (await fault_of(client.tree(REPO, credential=credentials.of_call(BOB)))).reason is Reason.REPO_NOT_FOUND
    assert (await fault_of(client.tree(REPO, credential=credentials.service()))).reason is Reason.REPO_NOT_FOUND
    assert (await fault_of(client.tree(REPO))).reason is Reason.REPO_NOT_FOUND
    asked = len(private.journal.requests())
    assert (await client.tree(REPO, credential=credentials.of_call(ANN))).files  # hers is kept
    assert len(private.journal.requests()) == asked


async def test_a_revoked_token_is_noticed_within_the_minute(private: HubEmulator, client: HubClient) -> None:
    credential = caller(ANN)
    await client.tree(REPO, credential=credential)
    private.users.revoke(ANN)
    client.now += 61
    assert (await fault_of(client.tree(REPO, credential=credential))).reason is Reason.CREDENTIAL_INVALID


async def test_each_request_has_the_calls_own_token(private: HubEmulator, client: HubClient) -> None:
    await client.tree(REPO, credential=caller(ANN))
    await fault_of(client.tree(REPO, credential=caller(BOB)))
    await fault_of(client.tree(REPO))
    sent = [request.headers.get("authorization") for request in private.journal.requests()]
    assert sent == [f"Bearer {ANN}", f"Bearer {ANN}", f"Bearer {BOB}", None]


async def test_the_token_stays_with_the_hub(private: HubEmulator, client: HubClient) -> None:
    tree = await client.tree(REPO, credential=caller(ANN))
    content = await client.metadata.read(tree.repo, tree.commit, FilePath("m.gguf"), 100, caller(ANN))
    assert len(content) == 100
    (fetched,) = private.journal.requests(origin="cdn")
    assert "authorization" not in fetched.headers
    assert private.journal.leaks() == []


async def test_a_redirect_elsewhere_takes_no_token_along(private: HubEmulator, client: HubClient) -> None:
    private.faults.add(Status(307, headers={"Location": f"{private.cdn_url}/steal"}), "/api/")
    await fault_of(client.tree(REPO, credential=caller(ANN)))
    assert private.journal.requests("/steal")
    assert private.journal.leaks() == []


async def test_cookies_of_one_call_do_not_go_out_with_another(private: HubEmulator, client: HubClient) -> None:
    cookie = {"Set-Cookie": "session=ann; Path=/"}
    private.faults.add(Status(200, body="[]", headers=cookie), "^/api/models")
    await client.search(credential=caller(ANN))
    await client.search(credential=caller(BOB))
    assert all("cookie" not in request.headers for request in private.journal.requests())


async def test_the_environments_token_is_not_used_behind_our_back(
    private: HubEmulator, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", ANN)
    await fault_of(client.tree(REPO))
    assert all("authorization" not in request.headers for request in private.journal.requests())


async def test_only_the_hubs_models_are_asked_about(private: HubEmulator, client: HubClient) -> None:
    """huggingface_hub asks for more on its own account: for the list of agents that might be running it, say."""
    for url in (
        f"{private.endpoint}/api/agent-harnesses",
        f"{private.endpoint}/api/datasets/a/b",
        f"{private.cdn_url}/api/models/org/private",
        f"{private.endpoint}@evil.invalid/api/models",
    ):
        fault = await fault_of(client.gateway.call(caller(ANN), Subject(), partial(_get, url=url)))
        assert fault.reason is Reason.HUB_ERROR
    assert private.journal.requests() == []


def _get(session: HubSession, *, url: str) -> object:
    return get_session().get(url)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    loggers = [logging.getLogger(name) for name in ("", "huggingface_hub", "httpx2", "httpcore2")]
    before = [logger.level for logger in loggers]
    with caplog.at_level(logging.DEBUG):
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        yield caplog
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


async def test_no_token_in_any_log_line_or_fault(
    private: HubEmulator, everything_logged: pytest.LogCaptureFixture
) -> None:
    client = HubClient(private.endpoint, tries=2)
    tree = await client.tree(REPO, credential=caller(ANN))
    await client.metadata.read(tree.repo, tree.commit, FilePath("m.gguf"), 100, caller(ANN))
    private.faults.add(Status(500), "/refs")
    told = [
        await fault_of(client.metadata.refs(tree.repo, caller(ANN))),
        await fault_of(client.tree(REPO, "none", caller(ANN))),
        await fault_of(client.tree(REPO, credential=caller("hf_TokenOfNobody"))),
    ]
    shown = everything_logged.text + "".join(f"{fault!r} {fault} {fault.facts} {fault.__cause__!r}" for fault in told)
    assert "127.0.0.1" in everything_logged.text  # something was logged at all
    for token in (ANN, BOB, "hf_TokenOfNobody"):
        assert token not in shown


async def test_signed_links_are_not_logged_by_default(private: HubEmulator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = HubClient(private.endpoint)
        tree = await client.tree(REPO, credential=caller(ANN))
        await client.metadata.read(tree.repo, tree.commit, FilePath("m.gguf"), 100, caller(ANN))
    assert "Signature" not in caplog.text
