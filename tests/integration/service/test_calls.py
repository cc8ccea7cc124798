"""What surrounds every call: errors that leak nothing, request ids, metrics, and no noise in the log."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from slipway.runner.v1 import model_service_pb2
from slipway_service.fault import Reason
from slipway_service.interceptors import REQUEST_ID_KEY
from slipway_service.rpc_errors import STATUS_DETAILS_KEY

from tests.integration.service.harness import PATIENCE, Running, eventually, fault_of, read, running
from tests.integration.service.toy import SECRET

pytestmark = pytest.mark.anyio

SERVICE = "slipway.runner.v1.ModelService"


async def failure(toy: Running, name: str, **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await toy.models.GetModel(model_service_pb2.GetModelRequest(name=name), timeout=PATIENCE, **options)
    return caught.value


async def raw(toy: Running, path: str, request: bytes = b"") -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = toy.channel.unary_unary(path)
    await call(request, timeout=PATIENCE)


def detail(error: grpc.aio.AioRpcError, into: Any) -> Any:
    raw = dict(error.trailing_metadata())[STATUS_DETAILS_KEY]
    assert isinstance(raw, bytes)
    assert any(found.Unpack(into) for found in status_pb2.Status.FromString(raw).details)
    return into


def handled(toy: Running, method: str, code: str, kind: str = "unary", service: str = SERVICE) -> float | None:
    labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method, "grpc_code": code}
    return toy.host.registry.get_sample_value("grpc_server_handled_total", labels)


@pytest.mark.parametrize("name", ["models/fault", "models/nested"])
async def test_a_fault_is_a_status_with_its_reason_even_out_of_task_groups(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as toy:
        error = await failure(toy, name)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert (error.details() or "").startswith("MODEL_NOT_FOUND: There is no model")
        fault = fault_of(error)
        assert (fault.reason, fault.resource) == (Reason.MODEL_NOT_FOUND, name)
        assert detail(error, error_details_pb2.ResourceInfo()).resource_type == "model"
        assert handled(toy, "GetModel", "NotFound") == 1
    assert not noise(caplog)


async def test_a_fault_reaches_the_caller_though_the_first_message_was_cut_short(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        for _ in range(10):
            call = toy.models.ReadModelLogs(model_service_pb2.ReadModelLogsRequest(name="models/cut"), timeout=PATIENCE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_considered_unavailable_is_not_repeated_by_the_channel(tmp_path: Path) -> None:
    policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1}
    config = {"methodConfig": [{"name": [{}], "retryPolicy": {**policy, "retryableStatusCodes": ["UNAVAILABLE"]}}]}
    async with (
        running(tmp_path) as toy,
        grpc.aio.insecure_channel(
            str(toy.host.address), options=[("grpc.service_config", json.dumps(config))]
        ) as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/GetModel")
        request = model_service_pb2.GetModelRequest(name="models/away").SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError, match="HUB_UNREACHABLE"):
            await call(request, timeout=PATIENCE)
        assert handled(toy, "GetModel", "Unavailable") == 1


async def test_an_abort_inside_a_task_group_is_no_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as toy:
        error = await failure(toy, "models/abort")
        assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "aborted inside a task group")
        await eventually(lambda: handled(toy, "GetModel", "AlreadyExists"))
    assert not noise(caplog)


@pytest.mark.parametrize("name", ["models/defect", "models/two"])
async def test_an_unexpected_exception_leaks_nothing_and_is_found_by_its_request_id(
    tmp_path: Path, name: str, log_events: list[dict[str, Any]]
) -> None:
    async with running(tmp_path) as toy:
        error = await failure(toy, name)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "INTERNAL: internal error"
        assert SECRET not in repr(error)
        request_id = detail(error, error_details_pb2.RequestInfo()).request_id
        assert dict(error.trailing_metadata())[REQUEST_ID_KEY] == request_id
    (logged,) = [event for event in log_events if event["event"] == "unexpected exception"]
    assert logged["request_id"] == request_id
    assert isinstance(logged["exc_info"], BaseException)


@pytest.mark.parametrize(("sent", "kept"), [("trace-42", True), ("a b", False), ("x" * 200, False)])
async def test_the_callers_request_id_is_kept_if_it_is_sane(tmp_path: Path, sent: str, kept: bool) -> None:
    async with running(tmp_path) as toy:
        call = toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="a"), metadata=((REQUEST_ID_KEY, sent),))
        await call
        got = dict(await call.trailing_metadata())[REQUEST_ID_KEY]
        assert (got == sent) is kept
        assert got


async def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.models.ListModels(model_service_pb2.ListModelsRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert fault_of(caught.value).reason is Reason.NOT_IMPLEMENTED


async def test_what_there_is_not_says_so_and_makes_no_series_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        for path in ("/slipway.runner.v1.ModelService/Nonsense", "/other.Service/Method"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(toy, path)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert fault_of(caught.value).reason is Reason.NOT_IMPLEMENTED
        assert handled(toy, "unknown", "Unimplemented", "unknown", "unknown") == 2


async def test_bytes_that_are_no_request_are_the_callers_fault(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        for method in ("GetModel", "WatchModels"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(toy, f"/{SERVICE}/{method}", b"\xff\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_deadline_and_cancellation_are_told_apart(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        call = toy.models.GetModel(model_service_pb2.GetModelRequest(name="models/wait"))
        with anyio.fail_after(PATIENCE):
            await toy.toy.waiting.wait()
        call.cancel()
        await eventually(lambda: handled(toy, "GetModel", "Canceled"))
        assert handled(toy, "GetModel", "DeadlineExceeded") == 0
        with anyio.fail_after(PATIENCE):
            while not handled(toy, "GetModel", "DeadlineExceeded"):
                # A request that is long on its way ends at the client first, which then cancels.
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await toy.models.GetModel(model_service_pb2.GetModelRequest(name="models/wait"), timeout=0.1)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_handler_whose_work_was_cancelled_by_others_has_failed(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        error = await failure(toy, "models/cancelled")
        assert (error.code(), fault_of(error).reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)


async def test_what_a_handler_shields_is_finished_though_its_client_left(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        call = toy.models.GetModel(model_service_pb2.GetModelRequest(name="models/shielded"))
        with anyio.fail_after(PATIENCE):
            await toy.toy.waiting.wait()
            call.cancel()
            await toy.toy.left.wait()
        assert toy.toy.keeping.locked()
        assert handled(toy, "GetModel", "Canceled") == 0
        toy.toy.release.set()
        await eventually(lambda: handled(toy, "GetModel", "Canceled"))
        assert toy.toy.kept == ["models/shielded"]


async def test_every_method_has_its_series_before_its_first_call(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        assert handled(toy, "UnloadModel", "OK") == 0
        assert handled(toy, "WatchModels", "Unavailable", "server_stream") == 0
        assert handled(toy, "Check", "OK", service="grpc.health.v1.Health") == 0


async def test_messages_of_a_stream_are_counted_and_its_length_is_no_latency(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        await toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="a"))
        call = toy.models.WatchModels(model_service_pb2.WatchModelsRequest())
        await read(call)
        value = toy.host.registry.get_sample_value
        stream = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": "WatchModels"}
        assert value("slipway_watchers", {"log": "models"}) == 1
        await eventually(lambda: value("grpc_server_msg_sent_total", stream))
        call.cancel()
        await eventually(lambda: handled(toy, "WatchModels", "Canceled", "server_stream"))
        unary = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "LoadModel"}
        assert value("grpc_server_msg_sent_total", stream) == 1
        assert value("grpc_server_msg_received_total", stream) == 1
        assert value("grpc_server_started_total", stream) == 1
        assert value("grpc_server_handling_seconds_count", stream) is None
        assert value("grpc_server_handling_seconds_count", unary) == 1


async def test_two_hundred_watchers_that_leave_make_no_noise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log_events: list[dict[str, Any]]
) -> None:
    async with running(tmp_path) as toy, toy.open_channel() as channel:
        models = Running(toy.host, toy.toy, channel).models
        calls = [models.WatchModels(model_service_pb2.WatchModelsRequest()) for _ in range(200)]
        for call in calls:
            assert (await read(call)).synced
        await leave(toy, calls, "WatchModels")
        assert toy.host.registry.get_sample_value("slipway_watchers", {"log": "models"}) == 0
    assert not noise(caplog, log_events)


async def test_two_hundred_readers_that_leave_while_they_are_written_to_make_no_noise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log_events: list[dict[str, Any]]
) -> None:
    """grpc.aio raises out of a write to a client that is gone before it cancels the call: two logged errors each."""
    async with running(tmp_path) as toy, toy.open_channel() as channel:
        models = Running(toy.host, toy.toy, channel).models
        calls = [models.ReadModelLogs(model_service_pb2.ReadModelLogsRequest(offset=100)) for _ in range(200)]
        for call in calls:
            with anyio.fail_after(PATIENCE):
                assert await call.read()
        await leave(toy, calls, "ReadModelLogs")
        assert set(toy.toy.left_by) == {asyncio.CancelledError}, "a handler need not know of anything else"
    assert not noise(caplog, log_events)


async def leave(toy: Running, calls: Sequence[Any], method: str) -> None:
    """Cancel all calls, let something be written to each, and wait until the server has noticed every one."""
    for call in calls:
        call.cancel()
        toy.toy.log.append("models/a", b"")
    await eventually(lambda: handled(toy, method, "Canceled", "server_stream") == len(calls))


def noise(caplog: pytest.LogCaptureFixture, events: Sequence[dict[str, Any]] = ()) -> list[str]:
    """What grpc.aio, asyncio or we have complained about."""
    unexpected = [event["event"] for event in events if event["event"] == "unexpected exception"]
    return unexpected + [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
