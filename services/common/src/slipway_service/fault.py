"""The one exception that domain code raises, and the reasons it can have.

The core knows no gRPC: it raises `Fault(Reason.MODEL_NOT_FOUND, "…")` where the fault is known, and `rpc_errors`
turns it into a status at the edge. The reasons are those of `slipway.common.v1.ErrorReason`; a test holds the two
lists equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why something failed, as `protos/slipway/common/v1/errors.proto` documents it."""

    INVALID_FIELDS = "INVALID_FIELDS"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL = "INTERNAL"
    DRAINING = "DRAINING"
    DEADLINE = "DEADLINE"
    STREAM_STALLED = "STREAM_STALLED"
    SERVICE_NOT_FOUND = "SERVICE_NOT_FOUND"
    REPO_NOT_FOUND = "REPO_NOT_FOUND"
    REVISION_NOT_FOUND = "REVISION_NOT_FOUND"
    ENTRY_NOT_FOUND = "ENTRY_NOT_FOUND"
    REPO_GATED = "REPO_GATED"
    REPO_DISABLED = "REPO_DISABLED"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    SERVICE_CREDENTIAL_INVALID = "SERVICE_CREDENTIAL_INVALID"
    CREDENTIAL_REQUIRED = "CREDENTIAL_REQUIRED"
    HUB_RATE_LIMITED = "HUB_RATE_LIMITED"
    HUB_UNREACHABLE = "HUB_UNREACHABLE"
    HUB_ERROR = "HUB_ERROR"
    OFFLINE = "OFFLINE"
    HUB_ANSWER_UNSAFE = "HUB_ANSWER_UNSAFE"
    DOWNLOAD_NOT_FOUND = "DOWNLOAD_NOT_FOUND"
    DOWNLOAD_STATE_CONFLICT = "DOWNLOAD_STATE_CONFLICT"
    VARIANT_NOT_FOUND = "VARIANT_NOT_FOUND"
    SELECTION_EMPTY = "SELECTION_EMPTY"
    DISK_FULL = "DISK_FULL"
    DISK_FAULT = "DISK_FAULT"
    HASH_MISMATCH = "HASH_MISMATCH"
    TRANSFER_FAILED = "TRANSFER_FAILED"
    DOWNLOAD_CANCELLED = "DOWNLOAD_CANCELLED"
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    SNAPSHOT_INCOMPLETE = "SNAPSHOT_INCOMPLETE"
    SNAPSHOT_PINNED = "SNAPSHOT_PINNED"
    SNAPSHOT_BUSY = "SNAPSHOT_BUSY"
    PIN_NOT_FOUND = "PIN_NOT_FOUND"
    CACHE_NOT_SHARED = "CACHE_NOT_SHARED"
    PATH_NOT_ALLOWED = "PATH_NOT_ALLOWED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_ID_TAKEN = "MODEL_ID_TAKEN"
    MODEL_UNLOADING = "MODEL_UNLOADING"
    MODEL_NOT_LOADED = "MODEL_NOT_LOADED"
    ACTIVE_MISMATCH = "ACTIVE_MISMATCH"
    NO_ACTIVE_MODEL = "NO_ACTIVE_MODEL"
    BACKEND_UNSUITABLE = "BACKEND_UNSUITABLE"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    REMOTE_CODE_REQUIRED = "REMOTE_CODE_REQUIRED"
    FLAG_NOT_ALLOWED = "FLAG_NOT_ALLOWED"
    ENVIRONMENT_NOT_ALLOWED = "ENVIRONMENT_NOT_ALLOWED"
    DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
    DEVICE_MEMORY_INSUFFICIENT = "DEVICE_MEMORY_INSUFFICIENT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    MODEL_FILE_INVALID = "MODEL_FILE_INVALID"
    MODEL_FILE_MISSING = "MODEL_FILE_MISSING"
    PORT_IN_USE = "PORT_IN_USE"
    BACKEND_FLAG_REJECTED = "BACKEND_FLAG_REJECTED"
    BACKEND_EXITED = "BACKEND_EXITED"
    BACKEND_ENGINE_DEAD = "BACKEND_ENGINE_DEAD"
    LOAD_STALLED = "LOAD_STALLED"
    BACKEND_UNRESPONSIVE = "BACKEND_UNRESPONSIVE"
    LEAKED = "LEAKED"
    RESTARTS_EXHAUSTED = "RESTARTS_EXHAUSTED"
    PROCESS_LOST = "PROCESS_LOST"
    REGISTRY_UNAVAILABLE = "REGISTRY_UNAVAILABLE"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    LOG_OFFSET_INVALID = "LOG_OFFSET_INVALID"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that is wrong: its path (`spec.source.repo`) and what to send instead."""

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
    """A page that helps the caller on."""

    description: str
    url: str


class Fault(Exception):
    """A failure with a reason, told in words that say what to do.

    Args:
        reason: what clients branch on.
        text: one or two sentences for a person, without the reason (it is put before them on the wire).
        facts: machine-readable details for `ErrorInfo.metadata`; never a secret.
        retry_after: seconds after which a repetition makes sense; None says nothing about repeating.
        fields: every wrong field of the request, for INVALID_FIELDS.
        preconditions: what stands in the way, for disk, device memory and pins.
        link: where the caller gets what is missing (for a gated repository, the page where access is asked for).
        resource: the name of what is not there (`models/qwen`, `org/repo`), for NOT_FOUND reasons.
    """

    def __init__(
        self,
        reason: Reason,
        text: str,
        *,
        facts: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        fields: tuple[FieldViolation, ...] = (),
        preconditions: tuple[Precondition, ...] = (),
        link: Link | None = None,
        resource: str = "",
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.facts: Mapping[str, str] = facts or {}
        self.retry_after = retry_after
        self.fields = fields
        self.preconditions = preconditions
        self.link = link
        self.resource = resource

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"
