"""Names, labels and codes as go-grpc-middleware has them."""

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from slipway.runner.v1 import model_service_pb2
from slipway_service.rpc_metrics import Method, RpcMetrics, go_name, methods_of

# google.golang.org/grpc/codes, codes.Code.String()
GO_NAMES = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}


def test_codes_are_spelled_as_in_go() -> None:
    assert {code.name: go_name(code) for code in grpc.StatusCode} == GO_NAMES


@pytest.mark.parametrize("path", ["/slipway.runner.v1.ModelService/LoadModel"])
def test_a_path_is_service_and_method(path: str) -> None:
    assert Method.parse(path, "unary") == Method("unary", "slipway.runner.v1.ModelService", "LoadModel")


def test_series_exist_from_the_start_and_streams_have_no_latency() -> None:
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    metrics.precreate(methods_of([model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]]))
    lines = generate_latest(registry).decode().splitlines()
    load = 'grpc_method="LoadModel",grpc_service="slipway.runner.v1.ModelService",grpc_type="unary"'
    watch = 'grpc_method="WatchModels",grpc_service="slipway.runner.v1.ModelService",grpc_type="server_stream"'
    for labels in (load, watch):
        assert f"grpc_server_started_total{{{labels}}} 0.0" in lines
        assert f"grpc_server_msg_received_total{{{labels}}} 0.0" in lines
        assert f"grpc_server_msg_sent_total{{{labels}}} 0.0" in lines
        assert f'grpc_server_handled_total{{grpc_code="DeadlineExceeded",{labels}}} 0.0' in lines
    assert f"grpc_server_handling_seconds_count{{{load}}} 0.0" in lines
    assert f"grpc_server_handling_seconds_count{{{watch}}} 0.0" not in lines
