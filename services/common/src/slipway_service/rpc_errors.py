"""Faults on the wire: the one table from reasons to status codes, and `google.rpc.Status` both ways.

Errors follow https://google.aip.dev/193: a message that a person can act on, an `ErrorInfo` for programs, and further
details where they help. A resource's `error` field carries the same `Status` as a failed call.
"""

from collections.abc import Iterable

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from slipway_service.fault import Fault, FieldViolation, Link, Precondition, Reason
from slipway_service.times import duration, seconds

DOMAIN = "slipway"

STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC libraries look for the serialised `google.rpc.Status`."""

# An error travels in trailers, whose 8 KiB limit would turn a longer one into RESOURCE_EXHAUSTED. The message goes
# twice (percent-encoded, and within the details), the details in base64.
_MESSAGE_BYTES = 1000
_NAME_BYTES = 100
_FACT_BYTES = 200
_MOST_FACTS = 8
_MOST_DETAILS = 16

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_ABSENT = grpc.StatusCode.NOT_FOUND
_DENIED = grpc.StatusCode.PERMISSION_DENIED
_REFUSED = grpc.StatusCode.FAILED_PRECONDITION
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_ABORTED = grpc.StatusCode.ABORTED
_AWAY = grpc.StatusCode.UNAVAILABLE
_INTERNAL = grpc.StatusCode.INTERNAL

CODES: dict[Reason, grpc.StatusCode] = {
    Reason.INVALID_FIELDS: _INVALID,
    Reason.PAGE_TOKEN_INVALID: _INVALID,
    Reason.ETAG_MISMATCH: _ABORTED,
    Reason.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.INTERNAL: _INTERNAL,
    Reason.DRAINING: _AWAY,
    Reason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.STREAM_STALLED: _AWAY,
    Reason.SERVICE_NOT_FOUND: _ABSENT,
    Reason.REPO_NOT_FOUND: _ABSENT,
    Reason.REVISION_NOT_FOUND: _ABSENT,
    Reason.ENTRY_NOT_FOUND: _ABSENT,
    Reason.REPO_GATED: _DENIED,
    Reason.REPO_DISABLED: _DENIED,
    Reason.CREDENTIAL_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.SERVICE_CREDENTIAL_INVALID: _REFUSED,
    Reason.CREDENTIAL_REQUIRED: _REFUSED,
    Reason.HUB_RATE_LIMITED: _EXHAUSTED,
    Reason.HUB_UNREACHABLE: _AWAY,
    Reason.HUB_ERROR: _AWAY,
    Reason.OFFLINE: _AWAY,
    Reason.HUB_ANSWER_UNSAFE: _REFUSED,
    Reason.DOWNLOAD_NOT_FOUND: _ABSENT,
    Reason.DOWNLOAD_STATE_CONFLICT: _REFUSED,
    Reason.VARIANT_NOT_FOUND: _ABSENT,
    Reason.SELECTION_EMPTY: _REFUSED,
    Reason.DISK_FULL: _EXHAUSTED,
    Reason.DISK_FAULT: _INTERNAL,
    Reason.HASH_MISMATCH: grpc.StatusCode.DATA_LOSS,
    Reason.TRANSFER_FAILED: _AWAY,
    Reason.DOWNLOAD_CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.SNAPSHOT_NOT_FOUND: _ABSENT,
    Reason.SNAPSHOT_INCOMPLETE: _REFUSED,
    Reason.SNAPSHOT_PINNED: _REFUSED,
    Reason.SNAPSHOT_BUSY: _ABORTED,
    Reason.PIN_NOT_FOUND: _ABSENT,
    Reason.CACHE_NOT_SHARED: _REFUSED,
    Reason.PATH_NOT_ALLOWED: _DENIED,
    Reason.MODEL_NOT_FOUND: _ABSENT,
    Reason.MODEL_ID_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    Reason.MODEL_UNLOADING: _ABORTED,
    Reason.MODEL_NOT_LOADED: _REFUSED,
    Reason.ACTIVE_MISMATCH: _ABORTED,
    Reason.NO_ACTIVE_MODEL: _AWAY,
    Reason.BACKEND_UNSUITABLE: _REFUSED,
    Reason.BACKEND_UNAVAILABLE: _REFUSED,
    Reason.REMOTE_CODE_REQUIRED: _REFUSED,
    Reason.FLAG_NOT_ALLOWED: _INVALID,
    Reason.ENVIRONMENT_NOT_ALLOWED: _INVALID,
    Reason.DEVICE_NOT_FOUND: _REFUSED,
    Reason.DEVICE_MEMORY_INSUFFICIENT: _EXHAUSTED,
    Reason.OUT_OF_MEMORY: _EXHAUSTED,
    Reason.MODEL_FILE_INVALID: _REFUSED,
    Reason.MODEL_FILE_MISSING: _ABSENT,
    Reason.PORT_IN_USE: _AWAY,
    Reason.BACKEND_FLAG_REJECTED: _REFUSED,
    Reason.BACKEND_EXITED: _AWAY,
    Reason.BACKEND_ENGINE_DEAD: _AWAY,
    Reason.LOAD_STALLED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.BACKEND_UNRESPONSIVE: _AWAY,
    Reason.LEAKED: _INTERNAL,
    Reason.RESTARTS_EXHAUSTED: _AWAY,
    Reason.PROCESS_LOST: _ABORTED,
    Reason.REGISTRY_UNAVAILABLE: _AWAY,
    Reason.DOWNLOAD_FAILED: _AWAY,
    Reason.LOG_OFFSET_INVALID: _INVALID,
}


def to_status(fault: Fault, *, request_id: str = "") -> status_pb2.Status:
    """A fault as `google.rpc.Status`; the request id, if given, goes into `RequestInfo`."""
    status = status_pb2.Status(code=CODES[fault.reason].value[0], message=_clipped(str(fault), _MESSAGE_BYTES))
    for detail in _details(fault, request_id):
        status.details.add().Pack(detail)
    return status


def from_status(status: status_pb2.Status) -> Fault:
    """The fault that `to_status` made this status from; INTERNAL for one without a reason of ours."""
    info = details.ErrorInfo()
    if not (_unpack(status, info) and info.domain == DOMAIN and info.reason in Reason.__members__):
        return Fault(Reason.INTERNAL, status.message)
    retry, bad, preconditions = details.RetryInfo(), details.BadRequest(), details.PreconditionFailure()
    absent, guide = details.ResourceInfo(), details.Help()
    for detail in (bad, preconditions, absent, guide):
        _unpack(status, detail)
    return Fault(
        Reason(info.reason),
        status.message.removeprefix(f"{info.reason}: "),
        facts=dict(info.metadata),
        retry_after=seconds(retry.retry_delay) if _unpack(status, retry) else None,
        fields=tuple(FieldViolation(found.field, found.description) for found in bad.field_violations),
        preconditions=tuple(
            Precondition(found.type, found.subject, found.description) for found in preconditions.violations
        ),
        link=next((Link(found.description, found.url) for found in guide.links), None),
        resource=absent.resource_name,
    )


def _details(fault: Fault, request_id: str) -> Iterable[Message]:
    facts = {key: _clipped(value, _FACT_BYTES) for key, value in list(fault.facts.items())[:_MOST_FACTS]}
    yield details.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=facts)
    if request_id:
        yield details.RequestInfo(request_id=request_id)
    if fault.retry_after is not None:
        yield details.RetryInfo(retry_delay=duration(fault.retry_after))
    if fault.fields:
        yield details.BadRequest(
            field_violations=[
                details.BadRequest.FieldViolation(
                    field=_clipped(found.field, _NAME_BYTES), description=_clipped(found.description, _NAME_BYTES)
                )
                for found in fault.fields[:_MOST_DETAILS]
            ]
        )
    if fault.preconditions:
        yield details.PreconditionFailure(
            violations=[
                details.PreconditionFailure.Violation(
                    type=found.type,
                    subject=_clipped(found.subject, _NAME_BYTES),
                    description=_clipped(found.description, _NAME_BYTES),
                )
                for found in fault.preconditions[:_MOST_DETAILS]
            ]
        )
    if fault.resource:
        kind = fault.reason.removesuffix("_NOT_FOUND").removesuffix("_MISSING").lower()
        yield details.ResourceInfo(resource_type=kind, resource_name=_clipped(fault.resource, _FACT_BYTES))
    if fault.link is not None:
        link = details.Help.Link(description=fault.link.description, url=fault.link.url)
        yield details.Help(links=[link])


def _clipped(text: str, most: int) -> str:
    """At most so many bytes of UTF-8, with an ellipsis for the rest.

    Names of files may have bytes that are no UTF-8, which Python keeps as lone surrogates and protobuf refuses.
    """
    encoded = text.encode(errors="backslashreplace")
    return encoded.decode() if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"


def _unpack(status: status_pb2.Status, into: Message) -> bool:
    return any(detail.Unpack(into) for detail in status.details)
