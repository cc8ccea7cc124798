"""What goes wrong at the Hub, told apart by cause: status code, X-Error-Code, or the transport.

Not by huggingface_hub's exceptions, which are renamed and reshaped between releases, and not by texts, but for one
where the Hub leaves no choice (`DISABLED_MESSAGE`).

Exception
├── Refusal      the Hub answered with an error
├── Unreachable  there was no whole answer
└── Unclear      there was an answer that no Hub gives
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slipway_service.fault import Fault, Link, Reason
from slipway_service.weights.names import RepoId

from slipway_registry.hub.credentials import Credential, CredentialKind

DISABLED_MESSAGE = "Access to this resource is disabled."
"""X-Error-Message of a disabled repository: it has no X-Error-Code (huggingface_hub `utils/_http.py` does the same)."""

DEFAULT_RETRY_AFTER = 30.0
"""Seconds to come back after, where the Hub does not say: long enough for a restart of theirs."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class HubFailure(Exception):
    """A call that failed. `retry_after`: seconds that the Hub asked us to wait, if it did."""

    passing = False
    retry_after: float | None = None


class Refusal(HubFailure):
    """The Hub answered with an error.

    Args:
        status: HTTP status, 400 to 599.
        code: X-Error-Code, empty where there is none.
        message: X-Error-Message, cut short.
        retry_after: seconds.
    """

    def __init__(self, status: int, code: str = "", message: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.passing = status in _PASSING or status >= 500


class Unreachable(HubFailure):
    """There was no whole answer: name, route, TLS, timeout, a broken connection."""

    passing = True


class Unclear(HubFailure):
    """There was an answer that no Hub gives: not JSON, or without what it must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a call was about, for the text and facts of its error."""

    repo: RepoId | None = None
    revision: str = ""
    path: str = ""

    @property
    def facts(self) -> Mapping[str, str]:
        """What is known of it."""
        known = {"repo_id": self.repo or "", "revision": self.revision, "path": self.path}
        return {name: str(value) for name, value in known.items() if value}


def fault_of(failure: HubFailure, subject: Subject, credential: Credential, endpoint: str) -> Fault:
    """What a caller is told of a failure."""
    match failure:
        case Unreachable():
            text = f"The Hub at {endpoint} could not be reached: {failure}."
            return Fault(Reason.HUB_UNREACHABLE, text, facts=subject.facts, retry_after=DEFAULT_RETRY_AFTER)
        case Refusal():
            return _refused(failure, subject, credential, endpoint)
        case _:
            text = f"What answers at {endpoint} does not answer as a Hub does: {failure}."
            return Fault(Reason.HUB_ERROR, text, facts=subject.facts, retry_after=DEFAULT_RETRY_AFTER)


def _refused(refusal: Refusal, subject: Subject, credential: Credential, endpoint: str) -> Fault:
    reason = _reason(refusal, credential)
    if reason is Reason.REPO_NOT_FOUND and subject.repo is None:
        reason = Reason.HUB_ERROR
    facts = {**subject.facts, "hub_status": str(refusal.status)}
    text = _TEXTS[reason].format(
        repo=subject.repo, revision=subject.revision, path=subject.path, status=refusal.status, code=refusal.code
    )
    link = None
    if reason is Reason.REPO_GATED and subject.repo:
        link = Link("Ask for access", f"{endpoint}/{subject.repo}")
    retry_after = None
    if reason in {Reason.HUB_RATE_LIMITED, Reason.HUB_ERROR}:
        retry_after = refusal.retry_after if refusal.retry_after is not None else DEFAULT_RETRY_AFTER
    return Fault(reason, text, facts=facts, retry_after=retry_after, link=link, resource=_absent(reason, subject))


def _absent(reason: Reason, subject: Subject) -> str:
    """The name of what is not there."""
    match reason:
        case Reason.REPO_NOT_FOUND:
            return f"{subject.repo}"
        case Reason.REVISION_NOT_FOUND:
            return f"{subject.repo}@{subject.revision}"
        case Reason.ENTRY_NOT_FOUND:
            return f"{subject.repo}@{subject.revision}/{subject.path}"
    return ""


_BY_CODE = {
    "RepoNotFound": Reason.REPO_NOT_FOUND,
    "RevisionNotFound": Reason.REVISION_NOT_FOUND,
    "EntryNotFound": Reason.ENTRY_NOT_FOUND,
    "GatedRepo": Reason.REPO_GATED,
}


def _reason(refusal: Refusal, credential: Credential) -> Reason:
    if refusal.code in _BY_CODE:
        return _BY_CODE[refusal.code]
    match refusal.status:
        case 429:
            return Reason.HUB_RATE_LIMITED
        case 401:
            return _UNKNOWN_TOKEN[credential.kind]
        case 451:
            return Reason.REPO_DISABLED
        case 403 if refusal.message == DISABLED_MESSAGE:
            return Reason.REPO_DISABLED
        case 403 | 404:
            return Reason.REPO_NOT_FOUND
        case _:
            return Reason.HUB_ERROR


_UNKNOWN_TOKEN = {
    # Without a code, 401 is about the token; without a token, it is how the Hub hides what a stranger may not know of.
    CredentialKind.CALLER: Reason.CREDENTIAL_INVALID,
    CredentialKind.SERVICE: Reason.SERVICE_CREDENTIAL_INVALID,
    CredentialKind.ANONYMOUS: Reason.REPO_NOT_FOUND,
}

_TEXTS = {
    Reason.REPO_NOT_FOUND: "The Hub has no model repository {repo}, or hides it from this credential: check the name, "
    "and send a token that may read it.",
    Reason.REVISION_NOT_FOUND: "{repo} has no revision {revision!r}: list its branches, tags and pull requests.",
    Reason.ENTRY_NOT_FOUND: "{repo} has no file {path!r} at {revision!r}.",
    Reason.REPO_GATED: "{repo} is gated: ask for access on its page, then send the token of the account that got it.",
    Reason.REPO_DISABLED: "The Hub has disabled {repo}.",
    Reason.CREDENTIAL_INVALID: "The Hub does not know the token that the caller gave.",
    Reason.SERVICE_CREDENTIAL_INVALID: "The Hub does not know the registry's own token: its operator must replace it.",
    Reason.HUB_RATE_LIMITED: "The Hub limits the registry's requests.",
    Reason.HUB_ERROR: "The Hub answered with status {status}.",
}
