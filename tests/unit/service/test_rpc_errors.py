"""Reasons, codes and statuses."""

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from slipway.common.v1 import errors_pb2
from slipway_service.fault import Fault, FieldViolation, Link, Precondition, Reason
from slipway_service.rpc_errors import CODES, from_status, to_status
from slipway_service.validation import Fields

PROTO = Path(__file__).parents[3] / "protos/slipway/common/v1/errors.proto"

Info = error_details_pb2.ErrorInfo

FAULTS = [
    Fault(Reason.MODEL_NOT_FOUND, "There is no such model.", resource="models/a", facts={"id": "a"}),
    Fault(Reason.HUB_RATE_LIMITED, "Wait.", retry_after=12.345678),
    Fault(Reason.DRAINING, "Come back.", retry_after=0.0),
    Fault(Reason.INVALID_FIELDS, "2 fields", fields=(FieldViolation("a.b", "wrong"), FieldViolation("c[1]", "too"))),
    Fault(Reason.DISK_FULL, "Full.", preconditions=(Precondition("DISK", "/cache", "needs 3 GiB"),)),
    Fault(Reason.REPO_GATED, "Ask for access.", link=Link("The page of the repository", "https://hub/org/repo")),
    Fault(Reason.INTERNAL, "internal error"),
]


def test_the_reasons_are_the_contracts() -> None:
    contract = {value.name.removeprefix("ERROR_REASON_") for value in errors_pb2.ErrorReason.DESCRIPTOR.values} - {
        "UNSPECIFIED"
    }
    assert contract == set(Reason.__members__)
    assert all(reason.name == reason.value for reason in Reason)


def test_every_reason_has_the_code_that_the_contract_states() -> None:
    stated = re.findall(r"// ([A-Z_]+)[ .].*\n(?:\s*//.*\n)*\s*ERROR_REASON_([A-Z_]+) = [1-9]", PROTO.read_text())
    assert {Reason(reason): code for code, reason in stated} == {reason: code.name for reason, code in CODES.items()}
    assert set(CODES) == set(Reason)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_a_fault_survives_the_wire(fault: Fault) -> None:
    status = status_pb2.Status.FromString(to_status(fault, request_id="r-1").SerializeToString())
    assert status.code == CODES[fault.reason].value[0]
    assert status.message == f"{fault.reason}: {fault.text}"
    assert vars(from_status(status)) == vars(fault)


def test_details_say_what_programs_need() -> None:
    status = to_status(FAULTS[0], request_id="r-1")
    kinds = [detail.type_url.removeprefix("type.googleapis.com/google.rpc.") for detail in status.details]
    assert kinds == ["ErrorInfo", "RequestInfo", "ResourceInfo"]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == ("MODEL_NOT_FOUND", "slipway", {"id": "a"})


def test_a_resource_carries_no_request_id() -> None:
    assert len(to_status(Fault(Reason.LEAKED, "Pid 7 remains.")).details) == 1


@pytest.mark.parametrize(
    "info",
    [
        None,
        Info(reason="MODEL_NOT_FOUND", domain="other"),
        Info(reason="NEW", domain="slipway"),
    ],
)
def test_a_status_that_is_not_ours_is_internal(info: Info | None) -> None:
    status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="text of theirs")
    if info is not None:
        status.details.add().Pack(info)
    fault = from_status(status)
    assert (fault.reason, fault.text) == (Reason.INTERNAL, "text of theirs")


def test_text_that_is_no_utf8_can_be_told() -> None:
    """Names of files may have such bytes; an error about them must not fail itself."""
    odd = b"a\xffb".decode(errors="surrogateescape")
    fault = Fault(
        Reason.PATH_NOT_ALLOWED,
        odd,
        facts={"path": odd},
        fields=(FieldViolation(odd, odd),),
        preconditions=(Precondition("DISK", odd, odd),),
        resource=odd,
    )
    told = from_status(to_status(fault))
    assert told.text == r"a\udcffb"
    assert told.facts["path"] == told.resource == told.fields[0].field == told.preconditions[0].subject == told.text


def test_how_many_fields_are_wrong_survives_though_not_all_are_told() -> None:
    fields = Fields()
    for number in range(21):
        fields.reject(f"spec.aliases[{number}]", "must be " + "long " * 20)
    told = to_status(fields.fault())
    assert told.message.endswith("…")
    assert told.message.startswith("INVALID_FIELDS: 21 fields are wrong, the first 16: spec.aliases[0]: must be ")
    assert len(from_status(told).fields) == 16
