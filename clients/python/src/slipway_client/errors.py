"""What calls raise.

    SlipwayError
    ├── RequestInvalid      the request cannot be right, whatever the state of things
    ├── NotFound            a repository, revision, variant, download, snapshot, pin, model or device is not there
    ├── AccessDenied        gated or disabled repositories, tokens, paths outside the allowed roots
    ├── Conflict            something is in another state than the request needs
    ├── NoRoom              disk, device memory or main memory does not suffice
    ├── TransferFailed      the Hub, or the way to it, does not give what it should
    ├── Damaged             files do not have the hash that they should have
    ├── BackendFailed       no backend can run the model, or the one that did has failed
    ├── Unavailable         the service asked, or one it needs, does not answer now
    ├── DeadlineExceeded    the answer did not come in time
    ├── NotServed           the service does not know the method: it is older than this client, or another one
    └── ServiceFailure      a defect of the service, and everything a newer service calls by an unknown name

Which class an error has follows from its reason, so `except NotFound` catches all that is not there and
`error.reason == "REPO_GATED"` tells one from another. Text is for people and never needs to be parsed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is wrong: its path (`spec.repo.repo_id`) and what to send instead."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """Something outside the request that stands in its way.

    `type` is a constant such as `DISK`, `DEVICE_MEMORY` or `PIN`; `subject` names the disk, device or holder.
    """

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Link:
    """A page that helps on."""

    description: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What came with an error beside its reason and text. Everything is empty when the service did not say it."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Machine-readable details (`ErrorInfo.metadata`)."""
    retry_after: float | None = None
    """Seconds after which repeating makes sense; None says nothing about repeating."""
    fields: tuple[FieldViolation, ...] = ()
    preconditions: tuple[Precondition, ...] = ()
    help: tuple[Link, ...] = ()
    resource: str = ""
    """Name of the resource that the error is about, for example `models/qwen`."""
    request_id: str = ""
    """Finds the request in the service's log."""
    address: str = ""
    """The service that was asked."""
    from_service: bool = False
    """Whether a Slipway service gave the reason; else it is the status code of the transport or of a proxy."""


class SlipwayError(Exception):
    """A call, a download or a model failed.

    Args:
        reason: a name of `slipway.common.v1.ErrorReason` without its prefix. What never reached a service, or comes
            from something between, has the name of its status code instead (`UNAVAILABLE`).
        text: one or two sentences for a person: what to do. Without the reason.
        code: the status code it came with.
        details: the rest, each also to be had as an attribute of the error.
    """

    reasons: ClassVar[frozenset[str]] = frozenset()
    """The reasons of this family."""
    usual_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    """The status code of an error that came with none."""

    def __init__(
        self,
        reason: str,
        text: str,
        *,
        code: grpc.StatusCode | None = None,
        details: Details | None = None,
    ) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text
        self.code = code or self.usual_code
        self.details = details or Details()
        self.facts = self.details.facts
        self.retry_after = self.details.retry_after
        self.fields = self.details.fields
        self.preconditions = self.details.preconditions
        self.help = self.details.help
        self.resource = self.details.resource
        self.request_id = self.details.request_id
        self.address = self.details.address
        self.from_service = self.details.from_service


class RequestInvalid(SlipwayError):
    """The request cannot be right; `fields` lists everything that is wrong with it."""

    reasons = frozenset(
        {
            "INVALID_FIELDS",
            "PAGE_TOKEN_INVALID",
            "FLAG_NOT_ALLOWED",
            "ENVIRONMENT_NOT_ALLOWED",
            "LOG_OFFSET_INVALID",
        }
    )


class NotFound(SlipwayError):
    """What was named is not there."""

    usual_code = grpc.StatusCode.NOT_FOUND
    reasons = frozenset(
        {
            "REPO_NOT_FOUND",
            "REVISION_NOT_FOUND",
            "ENTRY_NOT_FOUND",
            "VARIANT_NOT_FOUND",
            "SELECTION_EMPTY",
            "DOWNLOAD_NOT_FOUND",
            "SNAPSHOT_NOT_FOUND",
            "PIN_NOT_FOUND",
            "SERVICE_NOT_FOUND",
            "MODEL_NOT_FOUND",
            "DEVICE_NOT_FOUND",
        }
    )


class AccessDenied(SlipwayError):
    """Someone has to allow it first; for a gated repository `help` has the page where access is asked for."""

    reasons = frozenset(
        {
            "REPO_GATED",
            "REPO_DISABLED",
            "CREDENTIAL_INVALID",
            "SERVICE_CREDENTIAL_INVALID",
            "CREDENTIAL_REQUIRED",
            "PATH_NOT_ALLOWED",
        }
    )


class Conflict(SlipwayError):
    """Something is in another state than the request needs: read it again and decide anew."""

    reasons = frozenset(
        {
            "ETAG_MISMATCH",
            "DOWNLOAD_STATE_CONFLICT",
            "DOWNLOAD_CANCELLED",
            "SNAPSHOT_INCOMPLETE",
            "SNAPSHOT_PINNED",
            "SNAPSHOT_BUSY",
            "MODEL_ID_TAKEN",
            "MODEL_UNLOADING",
            "MODEL_NOT_LOADED",
            "ACTIVE_MISMATCH",
            "NO_ACTIVE_MODEL",
        }
    )


class NoRoom(SlipwayError):
    """Disk, device memory or main memory does not suffice; `preconditions` says needed and free."""

    reasons = frozenset({"DISK_FULL", "DEVICE_MEMORY_INSUFFICIENT", "OUT_OF_MEMORY"})


class TransferFailed(SlipwayError):
    """The Hub, or the way to it, does not give what it should."""

    reasons = frozenset(
        {
            "HUB_RATE_LIMITED",
            "HUB_UNREACHABLE",
            "HUB_ERROR",
            "OFFLINE",
            "HUB_ANSWER_UNSAFE",
            "TRANSFER_FAILED",
            "DOWNLOAD_FAILED",
        }
    )


class Damaged(SlipwayError):
    """Files do not have the hash that they should have: those of the Hub, of the cache, or of a directory."""

    usual_code = grpc.StatusCode.DATA_LOSS
    reasons = frozenset({"HASH_MISMATCH"})


class BackendFailed(SlipwayError):
    """No backend here can run the model, or the one that ran it has failed."""

    reasons = frozenset(
        {
            "BACKEND_UNSUITABLE",
            "BACKEND_UNAVAILABLE",
            "REMOTE_CODE_REQUIRED",
            "MODEL_FILE_INVALID",
            "MODEL_FILE_MISSING",
            "PORT_IN_USE",
            "BACKEND_FLAG_REJECTED",
            "BACKEND_EXITED",
            "BACKEND_ENGINE_DEAD",
            "LOAD_STALLED",
            "BACKEND_UNRESPONSIVE",
            "LEAKED",
            "RESTARTS_EXHAUSTED",
            "PROCESS_LOST",
        }
    )


class Unavailable(SlipwayError):
    """The service asked, or one it needs, does not answer now; repeating may help."""

    reasons = frozenset({"DRAINING", "STREAM_STALLED", "REGISTRY_UNAVAILABLE"})


class DeadlineExceeded(SlipwayError):
    """The answer did not come in time; what had begun may go on."""

    reasons = frozenset({"DEADLINE"})


class NotServed(SlipwayError):
    """The service does not know the method: it is older than this client, or the address is that of another service."""

    usual_code = grpc.StatusCode.UNIMPLEMENTED
    reasons = frozenset({"NOT_IMPLEMENTED"})


class ServiceFailure(SlipwayError):
    """A defect of the service (its log has it under `request_id`), or a reason that this client does not know."""

    reasons = frozenset({"INTERNAL", "DISK_FAULT", "CACHE_NOT_SHARED"})


FAMILIES: tuple[type[SlipwayError], ...] = (
    RequestInvalid,
    NotFound,
    AccessDenied,
    Conflict,
    NoRoom,
    TransferFailed,
    Damaged,
    BackendFailed,
    Unavailable,
    DeadlineExceeded,
    NotServed,
    ServiceFailure,
)

_BY_REASON = {reason: family for family in FAMILIES for reason in family.reasons}

# For what carries no reason we know: a proxy's answer, a broken connection, a newer service.
_BY_CODE: Mapping[grpc.StatusCode, type[SlipwayError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestInvalid,
    grpc.StatusCode.OUT_OF_RANGE: RequestInvalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
}


def family(reason: str, code: grpc.StatusCode) -> type[SlipwayError]:
    """The class of an error: by its reason, or by its status code where the reason is not known."""
    return _BY_REASON.get(reason) or _BY_CODE.get(code, ServiceFailure)
