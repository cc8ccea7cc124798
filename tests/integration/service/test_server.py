"""What every server brings along: reflection, health, limits, and streams of any kind that end well."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry
from slipway.runner.v1 import model_service_pb2
from slipway_service import lifecycle
from slipway_service.fault import Reason
from slipway_service.lifecycle import Host, Stop
from slipway_service.rpc_metrics import RpcMetrics
from slipway_service.server import bind, new_server
from slipway_service.values import ListenAddress
from slipway_service.watcher import Pace

from tests.integration.service.harness import PATIENCE, Running, eventually, fault_of, read, running
from tests.integration.service.toy import ToySettings, open_toy

pytestmark = pytest.mark.anyio

Reflect = reflection_pb2.ServerReflectionRequest
Health = health_pb2.HealthCheckRequest
Status = health_pb2.HealthCheckResponse


async def reflect(toy: Running, version: str, request: Any) -> Any:
    ask: Any = toy.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        Reflect.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(iter([request]), timeout=PATIENCE)
    return await call.read()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_what_is_served_and_describes_all_of_it(tmp_path: Path, version: str) -> None:
    async with running(tmp_path) as toy:
        listed = await reflect(toy, version, Reflect(list_services=""))
        names = {service.name for service in listed.list_services_response.service}
        assert names == {
            "slipway.runner.v1.ModelService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for name in names:
            described = await reflect(toy, version, Reflect(file_containing_symbol=name))
            files = [
                FileDescriptorProto.FromString(raw) for raw in described.file_descriptor_response.file_descriptor_proto
            ]
            assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}


async def test_health_of_server_services_and_resources(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        health: Any = health_pb2_grpc.HealthStub(toy.channel)  # type: ignore[no-untyped-call]
        toy.host.health.set("models/a", False)
        for name, status in (
            ("", Status.SERVING),
            ("slipway.runner.v1.ModelService", Status.SERVING),
            ("models/a", Status.NOT_SERVING),
        ):
            assert (await health.Check(Health(service=name))).status == status
        listed = await health.List(health_pb2.HealthListRequest())
        assert listed.statuses["models/a"].status == Status.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(Health(service="models/unknown"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        fault = fault_of(caught.value)
        assert (fault.reason, fault.resource) == (Reason.SERVICE_NOT_FOUND, "models/unknown")


async def test_a_health_watch_follows_a_resource_from_before_it_is_there_until_drain(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        health: Any = health_pb2_grpc.HealthStub(toy.channel)  # type: ignore[no-untyped-call]
        call = health.Watch(Health(service="models/a"), timeout=PATIENCE)
        assert (await call.read()).status == Status.SERVICE_UNKNOWN
        toy.host.health.set("models/a", True)
        assert (await call.read()).status == Status.SERVING
        toy.host.health.set("models/b", True)
        toy.host.health.set("models/a", False)
        assert (await call.read()).status == Status.NOT_SERVING
        toy.host.health.remove("models/a")
        assert (await call.read()).status == Status.SERVICE_UNKNOWN
        toy.host.health.set("models/a", True)
        assert (await call.read()).status == Status.SERVING
        toy.host.health.drain()
        toy.host.health.set("models/a", True)
        assert (await call.read()).status == Status.NOT_SERVING
        toy.host.health.end_watches()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exhaust(call)
        assert fault_of(caught.value).reason is Reason.DRAINING
        assert (await health.Check(Health(service="models/a"))).status == Status.NOT_SERVING, "nothing serves any more"


async def exhaust(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_call_in_progress_ends_as_it_should_while_the_server_drains(tmp_path: Path) -> None:
    async with running(tmp_path, drain_grace=PATIENCE) as toy:
        watching = toy.models.WatchModels(model_service_pb2.WatchModelsRequest())
        assert (await read(watching)).synced
        call = toy.models.GetModel(model_service_pb2.GetModelRequest(name="models/wait"))
        with anyio.fail_after(PATIENCE):
            await toy.toy.waiting.wait()
        toy.host.stop.ask()
        with pytest.raises(grpc.aio.AioRpcError):
            await watching.read()
        toy.toy.release.set()
        assert (await call).cursor.epoch == toy.toy.log.epoch


async def test_messages_stay_within_grpcs_own_limit(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="x" * 5_000_000), timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_generator_that_is_cancelled_ends_in_its_own_task(caplog: pytest.LogCaptureFixture) -> None:
    """Third parties' streams may be generators; grpc.aio alone would close them in another task, which cancel scopes
    answer with RuntimeError."""
    ended: list[type[BaseException]] = []

    async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            with anyio.CancelScope():
                while True:
                    yield b"x" * 200_000  # more than the client's window: the cancellation comes during the write
        except BaseException as error:
            ended.append(type(error))
            raise

    server = new_server(RpcMetrics(CollectorRegistry()))
    server.add_registered_method_handlers("test.Service", {"Stream": grpc.unary_stream_rpc_method_handler(stream)})
    address = bind(server, ListenAddress("127.0.0.1", 0))
    await server.start()
    try:
        options = [("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(str(address), options=options) as channel:
            open_stream: Any = channel.unary_stream("/test.Service/Stream")
            calls = [open_stream(b"") for _ in range(20)]
            for call in calls:
                assert await call.read()
                call.cancel()
            await eventually(lambda: len(ended) == len(calls))
    finally:
        await server.stop(None)
    assert not [kind for kind in ended if issubclass(kind, Exception)], "only cancelled or closed"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_service_that_fails_while_it_serves_takes_the_server_down_with_it(tmp_path: Path) -> None:
    @asynccontextmanager
    async def opener(host: Host) -> AsyncIterator[None]:
        async def fail() -> None:
            await eventually((tmp_path / "address").exists)
            raise ValueError("the supervisor died")

        async with anyio.create_task_group() as tasks, open_toy(host):
            tasks.start_soon(fail)
            yield

    with pytest.raises(ExceptionGroup) as caught, anyio.fail_after(PATIENCE):
        await lifecycle.serve(ToySettings(state_dir=tmp_path), opener, stop=Stop())
    assert caught.group_contains(ValueError, match="the supervisor died")
    assert not (tmp_path / "address").exists()


@pytest.mark.full
async def test_a_client_that_pings_as_ours_does_is_not_taken_for_an_abuser(tmp_path: Path) -> None:
    """Core would end the connection at the third ping within five minutes: the watch below would fail at about 33 s."""
    options = [
        ("grpc.keepalive_time_ms", 11_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    quiet = Pace(bookmark_interval=3600)
    async with running(tmp_path, pace=quiet) as toy, toy.open_channel(options=options) as channel:
        call = Running(toy.host, toy.toy, channel).models.WatchModels(model_service_pb2.WatchModelsRequest())
        assert (await read(call)).synced
        await anyio.sleep(60)
        await toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="a"))
        assert (await read(call)).cursor.revision == 1
