"""Decoding of every kind of detail, and the family of every reason of the contract."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    Help,
    PreconditionFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from slipway.common.v1.errors_pb2 import ErrorReason
from slipway_client import errors
from slipway_client.error_details import DETAILS_KEY, from_rpc_error, from_status
from slipway_client.errors import FAMILIES, FieldViolation, Link, Precondition, family


def status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    made = Status(code=code.value[0], message=message)
    for detail in details:
        made.details.add().Pack(detail)
    return made


def info(reason: str, domain: str = "slipway", **facts: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=domain, metadata=facts)


def rpc_error(code: grpc.StatusCode, text: str, details: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*(((DETAILS_KEY, details),) if details is not None else ()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=text)


def test_every_reason_of_the_contract_has_one_family() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    families = [reason for one in FAMILIES for reason in one.reasons]
    assert sorted(families) == sorted(contract)


def test_every_family_is_drawn_in_the_tree() -> None:
    for one in FAMILIES:
        assert f" {one.__name__} " in (errors.__doc__ or "")


def test_every_detail_is_an_attribute() -> None:
    error = from_status(
        status(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "DISK_FULL: free 3 GB, or choose a smaller variant",
            info("DISK_FULL", needed="9", free="6"),
            RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
            BadRequest(field_violations=[BadRequest.FieldViolation(field="a.b", description="too long")]),
            PreconditionFailure(
                violations=[PreconditionFailure.Violation(type="DISK", subject="/cache", description="3 GB short")]
            ),
            Help(links=[Help.Link(description="ask here", url="https://hub.example/org/model")]),
            ResourceInfo(resource_type="download", resource_name="downloads/1"),
            RequestInfo(request_id="r1"),
            StringValue(value="a detail of a newer service"),
        )
    )
    assert type(error) is errors.NoRoom
    assert str(error) == "DISK_FULL: free 3 GB, or choose a smaller variant"
    assert error.text == "free 3 GB, or choose a smaller variant"
    assert error.reason == "DISK_FULL"
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.facts == {"needed": "9", "free": "6"}
    assert error.retry_after == 1.5
    assert error.fields == (FieldViolation("a.b", "too long"),)
    assert error.preconditions == (Precondition("DISK", "/cache", "3 GB short"),)
    assert error.help == (Link("ask here", "https://hub.example/org/model"),)
    assert error.resource == "downloads/1"
    assert error.request_id == "r1"
    assert error.from_service


def test_details_of_a_call_come_from_its_trailing_metadata() -> None:
    sent = status(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND: no such model", info("MODEL_NOT_FOUND"))
    error = from_rpc_error(
        rpc_error(grpc.StatusCode.NOT_FOUND, sent.message, sent.SerializeToString()),
        address="host:1",
        request_id="mine",
    )
    assert type(error) is errors.NotFound
    assert (error.text, error.address, error.request_id) == ("no such model", "host:1", "mine")


def test_the_services_own_request_id_comes_first() -> None:
    sent = status(grpc.StatusCode.INTERNAL, "internal error", info("INTERNAL"), RequestInfo(request_id="theirs"))
    error = from_rpc_error(
        rpc_error(grpc.StatusCode.INTERNAL, sent.message, sent.SerializeToString()), request_id="mine"
    )
    assert (error.request_id, error.from_service) == ("theirs", True)


@pytest.mark.parametrize(
    "details",
    [
        pytest.param(None, id="none"),
        pytest.param(b"\xff\xff", id="garbage"),
        pytest.param(status(grpc.StatusCode.ABORTED, "other").SerializeToString(), id="of another code"),
        pytest.param(
            Status(
                code=grpc.StatusCode.UNAVAILABLE.value[0],
                message="connection refused",
                details=[Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")],
            ).SerializeToString(),
            id="damaged",
        ),
        pytest.param(
            status(
                grpc.StatusCode.UNAVAILABLE, "connection refused", info("MODEL_NOT_FOUND", domain="proxy.example")
            ).SerializeToString(),
            id="of another domain",
        ),
    ],
)
def test_without_our_details_the_reason_is_the_status_code(details: bytes | None) -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused", details))
    assert type(error) is errors.Unavailable
    assert (error.reason, error.text, error.from_service) == ("UNAVAILABLE", "connection refused", False)
    assert error.retry_after is None


def test_a_reason_of_a_newer_service_falls_into_the_family_of_its_code() -> None:
    error = from_status(status(grpc.StatusCode.NOT_FOUND, "MOON_NOT_FOUND: look up", info("MOON_NOT_FOUND")))
    assert type(error) is errors.NotFound
    assert (error.reason, error.text) == ("MOON_NOT_FOUND", "look up")


def test_what_a_service_does_not_serve_is_no_defect_of_it() -> None:
    assert family("NOT_IMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED) is errors.NotServed
    assert family("UNIMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED) is errors.NotServed, "said by gRPC alone"


def test_a_code_without_family_is_a_failure_of_the_service() -> None:
    assert family("", grpc.StatusCode.DATA_LOSS) is errors.ServiceFailure
    assert type(from_status(Status(code=99, message="odd"))) is errors.ServiceFailure
