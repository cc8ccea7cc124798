"""A service as a process: where it listens, whom it refuses, and how it ends."""

import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
import structlog.testing
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from slipway.runner.v1 import model_service_pb2, model_service_pb2_grpc
from slipway_service import lifecycle
from slipway_service.fault import Reason
from slipway_service.lifecycle import Host, Stop
from slipway_service.state_dir import StartError

from tests.integration.service.harness import PATIENCE, eventually, fault_of, program, read, toy_command
from tests.integration.service.toy import ToySettings

pytestmark = pytest.mark.anyio


async def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the standard error of a start that fails."""
    with anyio.fail_after(PATIENCE):
        done = await anyio.run_process(toy_command(*arguments), check=False)
    return done.returncode, done.stderr.decode()


async def test_the_first_line_and_the_files_say_where_it_listens(tmp_path: Path) -> None:
    async with program(tmp_path) as toy:
        first = toy.log_lines()[0]
        assert first["address"] == toy.address == toy.addresses["grpc"]
        assert not toy.address.endswith(":0")
        assert first["metrics"] == toy.addresses["metrics"]
        async with grpc.aio.insecure_channel(toy.address) as channel:
            answer = await health_of(channel).Check(health_pb2.HealthCheckRequest(service=""))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        toy.signal()
        assert await toy.ended() == 0
        assert {path.name for path in toy.state_dir.iterdir()} == {"lock"}


async def test_metrics_are_served_over_http(tmp_path: Path) -> None:
    async with program(tmp_path) as toy:
        host, port = toy.addresses["metrics"].split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join([chunk async for chunk in stream]).decode()
        assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="LoadModel"' in text
        assert "process_resident_memory_bytes" in text
        assert "_created" not in text


async def test_a_second_server_on_the_port_is_refused_in_one_line(tmp_path: Path) -> None:
    async with program(tmp_path) as toy:
        code, text = await refused("--state-dir", str(tmp_path / "other"), "--listen", toy.address)
        assert code == 1
        (line,) = text.splitlines()
        assert f"cannot listen on {toy.address}: in use" in line


async def test_a_taken_metrics_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = await refused("--state-dir", str(tmp_path / "state"), "--metrics-listen", address)
    assert code == 1
    (line,) = text.splitlines()
    assert f"cannot listen on {address}: Address already in use" in line


async def test_a_state_directory_has_one_holder(tmp_path: Path) -> None:
    async with program(tmp_path) as toy:
        code, text = await refused("--state-dir", str(toy.state_dir))
        assert code == 1
        assert f"in use by process {toy.process.pid}" in text
        assert (toy.state_dir / "address").exists(), "the refused one has touched nothing"


async def test_what_a_killed_process_left_is_withdrawn_and_does_not_hinder(tmp_path: Path) -> None:
    async with program(tmp_path) as toy:
        toy.signal(signal.SIGKILL)
        await toy.ended()
        assert (toy.state_dir / "address").exists()
    async with program(tmp_path) as again:
        assert again.address == again.log_lines()[0]["address"]


async def test_beyond_loopback_needs_a_word(tmp_path: Path) -> None:
    code, text = await refused("--state-dir", str(tmp_path / "state"), "--listen", "0.0.0.0:0")
    assert code == 2
    (line,) = text.splitlines()
    assert "--insecure" in line
    async with program(tmp_path, "--listen", "0.0.0.0:0", "--insecure") as toy:
        assert toy.address.startswith("0.0.0.0:")
        (warning,) = [line for line in toy.log_lines() if line["level"] == "warning"]
        assert (warning["option"], warning["address"]) == ("--listen", "0.0.0.0:0")
        assert "without authentication" in warning["event"]


async def test_on_loopback_there_is_no_warning(tmp_path: Path) -> None:
    async with program(tmp_path, "--insecure") as toy:
        assert {line["level"] for line in toy.log_lines()} == {"info"}


async def test_a_service_that_cannot_open_does_not_say_that_it_listens(
    tmp_path: Path,
) -> None:
    @asynccontextmanager
    async def opener(_host: Host) -> AsyncIterator[None]:
        raise StartError("the cache is another's")
        yield

    with structlog.testing.capture_logs() as logged, pytest.raises(StartError), anyio.fail_after(PATIENCE):
        await lifecycle.serve(ToySettings(state_dir=tmp_path), opener, stop=Stop())
    assert not [line for line in logged if line["event"] == "listening"]


def health_of(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]


def channelz_of(channel: grpc.aio.Channel) -> Any:
    return channelz_pb2_grpc.ChannelzStub(channel)  # type: ignore[no-untyped-call]


async def watch(channel: grpc.aio.Channel) -> Any:
    """A watch that is synced."""
    call = model_service_pb2_grpc.ModelServiceStub(channel).WatchModels(model_service_pb2.WatchModelsRequest())
    assert (await read(call)).synced
    return call


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_open_watches_long_before_the_grace(tmp_path: Path, number: signal.Signals) -> None:
    """Held open, they would take the whole grace of ten minutes; the process ends within a tenth of that."""
    async with program(tmp_path, "--drain-grace", "10m") as toy, grpc.aio.insecure_channel(toy.address) as channel:
        calls = [await watch(channel) for _ in range(20)]
        health = health_of(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        toy.signal(number)
        assert await toy.ended() == 0
        for call in [*calls, health]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_all(call)
            assert fault_of(caught.value).reason is Reason.DRAINING
        assert toy.log_lines()[-1]["event"] == "stopped"


async def test_a_call_in_progress_is_finished_within_the_grace_and_cut_off_after_it(tmp_path: Path) -> None:
    async with program(tmp_path, "--drain-grace", "200ms") as toy, grpc.aio.insecure_channel(toy.address) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        call = models.GetModel(model_service_pb2.GetModelRequest(name="models/wait"))
        await models.LoadModel(model_service_pb2.LoadModelRequest(id="behind-it"))
        toy.signal()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert await toy.ended() == 0


async def test_a_second_signal_cuts_the_waits_short(tmp_path: Path) -> None:
    async with program(tmp_path, "--drain-notice", "60s", "--drain-grace", "10m") as toy:
        toy.signal()
        await eventually(lambda: any(line["event"] == "stopping" for line in toy.log_lines()))
        toy.signal()
        assert await toy.ended() == 0


async def test_during_the_notice_calls_are_taken_and_health_says_no(tmp_path: Path) -> None:
    async with program(tmp_path, "--drain-notice", "60s") as toy, grpc.aio.insecure_channel(toy.address) as channel:
        health = health_of(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(service="slipway.runner.v1.ModelService"))
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        toy.signal()
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await model_service_pb2_grpc.ModelServiceStub(channel).LoadModel(model_service_pb2.LoadModelRequest(id="late"))
        toy.signal()
        assert await toy.ended() == 0


async def test_a_service_that_does_not_close_is_left_behind(tmp_path: Path) -> None:
    async with program(tmp_path, "--close-takes", "1h") as toy:
        toy.signal()
        assert await toy.ended() == 0
        assert "the service did not close in time" in {line["event"] for line in toy.log_lines()}


async def test_channelz_is_on_the_admin_socket_only_and_the_socket_is_ours_alone(tmp_path: Path) -> None:
    request = channelz_pb2.GetServersRequest()
    async with program(tmp_path) as toy:
        path = toy.state_dir / "admin.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
            servers = await channelz_of(channel).GetServers(request, timeout=PATIENCE)
            assert len(servers.server) == 2
        async with grpc.aio.insecure_channel(toy.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channelz_of(channel).GetServers(request, timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_fork_handlers_are_off_whatever_the_environment_says(tmp_path: Path) -> None:
    check = "import slipway_service, os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    done = await anyio.run_process([toy_command()[0], "-c", check], env={"GRPC_ENABLE_FORK_SUPPORT": "1"})
    assert done.stdout.split() == [b"0"]
