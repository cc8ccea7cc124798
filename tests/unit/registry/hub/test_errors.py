"""One table from causes to reasons."""

import pytest
from slipway_registry.hub.credentials import ANONYMOUS, Credential, Credentials
from slipway_registry.hub.errors import (
    DEFAULT_RETRY_AFTER,
    DISABLED_MESSAGE,
    HubFailure,
    Refusal,
    Subject,
    Unclear,
    Unreachable,
    fault_of,
)
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import RepoId

SERVICE = Credentials("hf_service").service()
CALLER = Credentials().of_call("hf_caller")
REPO = Subject(repo=RepoId("org/m"), revision="v9", path="x.gguf")
ENDPOINT = "https://hub.example"


def fault(failure: HubFailure, credential: Credential = ANONYMOUS, subject: Subject = REPO) -> Fault:
    return fault_of(failure, subject, credential, ENDPOINT)


@pytest.mark.parametrize(
    ("failure", "credential", "reason"),
    [
        (Refusal(404, "RepoNotFound"), CALLER, Reason.REPO_NOT_FOUND),
        (Refusal(401, "RepoNotFound"), ANONYMOUS, Reason.REPO_NOT_FOUND),
        (Refusal(404, "RevisionNotFound"), ANONYMOUS, Reason.REVISION_NOT_FOUND),
        (Refusal(404, "EntryNotFound"), ANONYMOUS, Reason.ENTRY_NOT_FOUND),
        (Refusal(401, "GatedRepo"), ANONYMOUS, Reason.REPO_GATED),
        (Refusal(403, "GatedRepo"), SERVICE, Reason.REPO_GATED),
        (Refusal(403, "", DISABLED_MESSAGE), ANONYMOUS, Reason.REPO_DISABLED),
        (Refusal(451), ANONYMOUS, Reason.REPO_DISABLED),
        (Refusal(401), CALLER, Reason.CREDENTIAL_INVALID),
        (Refusal(401, "", "whatever it says"), CALLER, Reason.CREDENTIAL_INVALID),
        (Refusal(401), SERVICE, Reason.SERVICE_CREDENTIAL_INVALID),
        (Refusal(401), ANONYMOUS, Reason.REPO_NOT_FOUND),
        (Refusal(403), CALLER, Reason.REPO_NOT_FOUND),
        (Refusal(404), ANONYMOUS, Reason.REPO_NOT_FOUND),
        (Refusal(404, "SomethingNew"), ANONYMOUS, Reason.REPO_NOT_FOUND),
        (Refusal(429), ANONYMOUS, Reason.HUB_RATE_LIMITED),
        (Refusal(400), ANONYMOUS, Reason.HUB_ERROR),
        (Refusal(408), ANONYMOUS, Reason.HUB_ERROR),
        (Refusal(500), ANONYMOUS, Reason.HUB_ERROR),
        (Refusal(503), ANONYMOUS, Reason.HUB_ERROR),
        (Refusal(599), ANONYMOUS, Reason.HUB_ERROR),
        (Unreachable("ConnectError: refused"), ANONYMOUS, Reason.HUB_UNREACHABLE),
        (Unclear("an answer that is not JSON"), ANONYMOUS, Reason.HUB_ERROR),
    ],
)
def test_reasons(failure: HubFailure, credential: Credential, reason: Reason) -> None:
    told = fault(failure, credential)
    assert told.reason is reason
    assert told.facts["repo_id"] == "org/m"
    assert "None" not in told.text


@pytest.mark.parametrize(
    ("code", "resource"),
    [
        ("RepoNotFound", "org/m"),
        ("RevisionNotFound", "org/m@v9"),
        ("EntryNotFound", "org/m@v9/x.gguf"),
        ("GatedRepo", ""),
    ],
)
def test_what_is_not_there_is_named(code: str, resource: str) -> None:
    assert fault(Refusal(404, code)).resource == resource


def test_a_token_that_is_refused_is_the_callers_also_long_after_the_call() -> None:
    assert fault(Refusal(401), CALLER).text == "The Hub does not know the token that the caller gave."


def test_a_gated_repository_comes_with_the_page_to_ask_on() -> None:
    link = fault(Refusal(403, "GatedRepo")).link
    assert link is not None
    assert link.url == "https://hub.example/org/m"


def test_what_passes_says_when_to_come_back() -> None:
    assert fault(Refusal(429, retry_after=7)).retry_after == 7
    assert fault(Refusal(429, retry_after=0)).retry_after == 0
    assert fault(Refusal(503)).retry_after == DEFAULT_RETRY_AFTER
    assert fault(Unreachable("x")).retry_after == DEFAULT_RETRY_AFTER
    assert fault(Refusal(404, "RepoNotFound")).retry_after is None


@pytest.mark.parametrize(
    ("status", "passing"), [(400, False), (401, False), (404, False), (408, True), (429, True), (502, True)]
)
def test_what_is_worth_another_try(status: int, passing: bool) -> None:
    assert Refusal(status).passing is passing
    assert Unreachable("x").passing
    assert not Unclear("x").passing


def test_a_search_is_not_about_a_repository() -> None:
    assert fault(Refusal(404), subject=Subject()).reason is Reason.HUB_ERROR
    assert fault(Refusal(401), CALLER, Subject()).reason is Reason.CREDENTIAL_INVALID
