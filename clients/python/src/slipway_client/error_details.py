"""From what is on the wire to an exception, in this one place.

Details travel as a serialised google.rpc.Status in the trailing metadata `grpc-status-details-bin` (gRPC's richer error
model); a resource that failed carries the same message in its `error` field.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    Help,
    PreconditionFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)

from slipway_client.errors import Details, FieldViolation, Link, Precondition, SlipwayError, family

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "slipway"

_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(status: status_pb2.Status) -> SlipwayError:
    """The exception for a resource's `error` field, or for the status of a call with its details."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = _info(status)
    reason = info.reason or code.name
    details = Details(**_attributes(status), facts=dict(info.metadata), from_service=bool(info.reason))
    return family(reason, code)(reason, status.message.removeprefix(f"{reason}:").strip(), code=code, details=details)


def from_rpc_error(error: grpc.aio.AioRpcError, *, address: str = "", request_id: str = "") -> SlipwayError:
    """The exception for a failed call.

    `request_id` is the one the call was sent with; the service's own word for it, where it sent one, comes first.
    """
    status = _sent_status(error) or status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    decoded = from_status(status)
    details = dataclasses.replace(decoded.details, address=address, request_id=decoded.request_id or request_id)
    return type(decoded)(decoded.reason, decoded.text or decoded.code.value[1], code=decoded.code, details=details)


def _sent_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The status in the trailing metadata, if it is there, readable, and of the call's own code."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
                return status if status.code == error.code().value[0] else None
    return None


def _info(status: status_pb2.Status) -> ErrorInfo:
    """Our own ErrorInfo; an empty one when there is none."""
    for packed in status.details:
        info = ErrorInfo()
        with contextlib.suppress(DecodeError):
            if packed.Unpack(info) and info.domain == DOMAIN:
                return info
    return ErrorInfo()


# Attributes of Details that each type of detail sets.
_READERS: Mapping[Any, Callable[[Any], dict[str, Any]]] = {
    RetryInfo: lambda info: {"retry_after": info.retry_delay.seconds + info.retry_delay.nanos / 1e9},
    BadRequest: lambda bad: {"fields": tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)},
    PreconditionFailure: lambda failure: {
        "preconditions": tuple(Precondition(v.type, v.subject, v.description) for v in failure.violations)
    },
    Help: lambda help_: {"help": tuple(Link(link.description, link.url) for link in help_.links)},
    ResourceInfo: lambda info: {"resource": info.resource_name},
    RequestInfo: lambda info: {"request_id": info.request_id},
}


def _attributes(status: status_pb2.Status) -> dict[str, Any]:
    """What the details say; one that is damaged or of a type we do not know is passed over."""
    attributes: dict[str, Any] = {}
    for packed in status.details:
        for detail_type, read in _READERS.items():
            detail = detail_type()
            with contextlib.suppress(DecodeError):
                if packed.Unpack(detail):
                    attributes |= read(detail)
    return attributes
