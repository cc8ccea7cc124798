"""The gateway's process and the runner that keeps it."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from slipway_runner.backends.base import Task
from slipway_runner.backends.openai import PATHS
from slipway_runner.gateway.control import SOCKET
from slipway_runner.gateway.keeper import Gateway, open_gateway
from slipway_runner.gateway.launch import Place, Setup
from slipway_runner.models.record import Model
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.process import pidfd, proc
from slipway_runner.process.proc import ProcessId
from slipway_runner.progress.signals import LoadStage
from slipway_runner.progress.tracker import LoadProgress
from slipway_service.state_dir import StartError
from slipway_service.values import ListenAddress

from tests.integration.runner.gateway.processes import gateways_below, resident_bytes
from tests.integration.runner.gateway.upstream import Spoken, Upstream, for_ever, pieces, stay, yes

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
ANY_PORT = ListenAddress("127.0.0.1", 0)


def model(backend: Upstream, model_id: str = "m", **more: Any) -> Model:
    given = {
        "uid": f"uid of {model_id}",
        "spec": Spec(source=PathSource(path=Path("/m.gguf"))),
        "state": State.LOADED,
        "task": Task.GENERATE,
        "port": backend.port,
        "served_name": "served",
        "paths": PATHS[Task.GENERATE],
        "create_time": 1.0,
        "update_time": 1.0,
        **more,
    }
    return Model(id=model_id, **given)


@asynccontextmanager
async def gateway(
    folder: Path, *models: Model, listen: ListenAddress = ANY_PORT, complete: bool = True, **more: Any
) -> AsyncIterator[Gateway]:
    """One that knows these models."""
    keep = more.pop("keep", False)
    os.makedirs(folder, exist_ok=True)
    async with open_gateway(folder, Setup(listen=listen, **more), keep=keep) as one:
        for each in models:
            one.update(each.id, each)
        if complete:
            one.complete()
            await told(one)
        yield one


async def told(one: Gateway) -> None:
    """Wait until the process knows its table."""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(30):
            while True:
                with anyio.move_on_after(5):
                    async with session.get(f"http://{one.address}/health") as answer:
                        if answer.status == 200:
                            return
                await anyio.lowlevel.checkpoint()


async def ask(one: Gateway, session: aiohttp.ClientSession, model_id: str = "m") -> aiohttp.ClientResponse:
    return await session.post(f"http://{one.address}{CHAT}", json={"model": model_id})


async def until_answer(one: Gateway, session: aiohttp.ClientSession, status: int) -> Any:
    """Ask until the answer is of this status; returns it."""
    with anyio.fail_after(30):
        while True:
            try:
                async with await ask(one, session) as answer:
                    if answer.status == status:
                        return await answer.json()
            except aiohttp.ClientError:
                await anyio.lowlevel.checkpoint()


def process_of(folder: Path) -> ProcessId:
    (one,) = gateways_below(folder)
    return one


async def test_it_is_a_process_of_its_own_that_nothing_of_the_runner_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    async with gateway(tmp_path):
        process = process_of(tmp_path)
        found = proc.stat(process.pid)
        assert found is not None
        assert found.session == found.group == process.pid
        environment = proc.environ(process.pid)
        assert "HF_TOKEN" not in environment
        assert environment["PATH"] == os.environ["PATH"]
        assert (tmp_path / SOCKET).stat().st_mode & 0o777 == 0o600
        assert os.readlink(f"/proc/{process.pid}/cwd") == str(Place(tmp_path).folder)
        soft = next(line for line in limits(process.pid) if line.startswith("Max open files")).split()
        assert soft[3] == soft[4]
    assert gateways_below(tmp_path) == []
    assert not (tmp_path / SOCKET).exists()


async def test_it_answers_for_the_models_it_was_told(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, model(backend, api_key="key")) as one:
        assert one.endpoint == f"http://{one.address}/v1"
        async with await ask(one, client) as answer:
            assert answer.status == 200
        assert backend.asked[0].headers["authorization"] == "Bearer key"
        one.update("m", model(backend, state=State.UNHEALTHY))
        await until_answer(one, client, 503)
        one.update("m", None)
        await until_answer(one, client, 404)
        assert "key" not in (tmp_path / "gateway.log").read_text()


async def test_the_endpoint_is_as_others_reach_it(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Setup(listen=ANY_PORT), advertise="gpu7") as one:
        assert one.endpoint == f"http://gpu7:{one.address.rpartition(':')[2]}/v1"
    async with open_gateway(tmp_path, Setup(listen=ListenAddress("::1", 0))) as one:
        assert one.address.startswith("[::1]:")
        assert one.endpoint == f"http://{one.address}/v1"


async def test_how_far_a_load_is_can_be_read_while_it_goes_on(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    loading = model(backend, state=State.LOADING, message="waiting for its turn")
    async with gateway(tmp_path, loading) as one:
        for fraction in (0.1, 0.25, 0.5):
            one.progress("m", LoadProgress(stage=LoadStage.LOADING_WEIGHTS, fraction=fraction, detail="shard 1/4"))
        with anyio.fail_after(10):
            error: dict[str, Any] = {}
            while error.get("progress") != 0.5:
                error = (await until_answer(one, client, 503))["error"]
        assert error["message"] == "MODEL_NOT_LOADED: m is loading (50%): shard 1/4"
        one.progress("nobody", LoadProgress(stage=LoadStage.LOADING_WEIGHTS))


async def test_a_drain_refuses_new_requests_and_waits_for_those_in_flight(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    spoken = backend.answer = Spoken()
    async with gateway(tmp_path, model(backend), model(backend, "other")) as one, anyio.create_task_group() as tasks:
        stream = await ask(one, client)
        await spoken.say(b"one")
        assert await stream.content.readany() == b"one"
        backend.answer = yes
        drained = anyio.Event()

        async def drain() -> None:
            await one.drain("m", 60)
            drained.set()

        tasks.start_soon(drain)
        error = (await until_answer(one, client, 503))["error"]
        assert error["code"] == "MODEL_UNLOADING"
        await spoken.say(b"two")
        assert await stream.content.readany() == b"two"
        assert not drained.is_set()
        spoken.end()
        assert await stream.content.readany() == b""
        with anyio.fail_after(10):
            await drained.wait()
        async with await ask(one, client, "other") as answer:
            assert answer.status == 200


async def test_a_drain_waits_no_longer_than_it_may(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend)) as one:
        async with await ask(one, client):
            with anyio.fail_after(10):
                await one.drain("m", 0.1)
        await one.drain("nobody", 60)


async def test_a_model_that_is_loaded_again_is_not_drained_any_more(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, model(backend)) as one:
        await one.drain("m", 1)
        await until_answer(one, client, 503)
        one.update("m", None)
        one.update("m", model(backend, uid="another"))
        await until_answer(one, client, 200)


async def test_use_tells_what_runs_and_when_it_last_did(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend)) as one:
        assert await one.use() == {}
        async with await ask(one, client):
            during = (await one.use())["uid of m"]
            assert during.in_flight == 1
        with anyio.fail_after(10):
            while (after := (await one.use())["uid of m"]).in_flight:
                pass
        assert after.last_use > during.last_use > 0


# One runner after the other.


async def test_the_next_runner_takes_it_over(tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession) -> None:
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend), keep=True) as one:
        before, address = process_of(tmp_path), one.address
        stream = await ask(one, client)
        await one.use()
    async with gateway(tmp_path, complete=False) as one:
        assert (process_of(tmp_path), one.address) == (before, address)
        for _ in range(10):  # by then it would have been told that there are no models
            await one.use()
        async with await ask(one, client) as answer:
            assert answer.status == 200
        assert (await one.use())["uid of m"].in_flight >= 1
        assert await stream.content.readany() == b"one"
        one.complete()
        await until_answer(one, client, 404)
    assert gateways_below(tmp_path) == []


async def test_one_that_was_started_otherwise_is_replaced_and_finishes_its_streams(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    spoken = backend.answer = Spoken()
    async with gateway(tmp_path, model(backend), keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
        stream = await ask(one, client)
        await spoken.say(b"one")
        assert await stream.content.readany() == b"one"
    async with gateway(tmp_path, model(backend), listen=address) as one:
        assert one.address == str(address)
        (now,) = set(gateways_below(tmp_path)) - {before}
        await spoken.say(b"two")
        assert await stream.content.readany() == b"two"
        async with client.get(f"http://{address}/v1/models", headers={"Connection": "close"}) as answer:
            assert answer.status == 200
        with anyio.move_on_after(3):
            await pidfd.exited(before)
            raise AssertionError("it did not wait for its stream")
        spoken.end()
        assert await stream.content.readany() == b""
        with anyio.fail_after(10):
            await pidfd.exited(before)
        assert gateways_below(tmp_path) == [now]


async def test_another_version_or_file_of_keys_is_another_setup(tmp_path: Path) -> None:
    listen = ListenAddress("127.0.0.1", 1)
    setup = Setup(listen=listen)
    assert str(setup) == str(Setup(listen=listen))
    others = [
        replace(setup, version="999"),
        replace(setup, listen=ListenAddress("127.0.0.1", 2)),
        replace(setup, api_key_file=tmp_path / "keys"),
    ]
    assert len({str(setup), *map(str, others)}) == 4


async def test_one_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(tmp_path, keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
    pidfd.send(before, signal.SIGSTOP)
    async with gateway(tmp_path, listen=address):
        assert process_of(tmp_path) != before


async def test_one_whose_socket_was_removed_is_replaced(tmp_path: Path) -> None:
    async with gateway(tmp_path, keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
    (tmp_path / SOCKET).unlink()
    async with gateway(tmp_path, listen=address):
        assert process_of(tmp_path) != before


async def test_a_stale_socket_is_no_gateway(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / SOCKET))
    async with gateway(tmp_path):
        assert len(gateways_below(tmp_path)) == 1


async def test_a_state_directory_may_be_anywhere(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    async with gateway(deep, model(backend)) as one:
        async with await ask(one, client) as answer:
            assert answer.status == 200
        assert gauge(one, "slipway_gateway_up") == 1


async def test_two_runners_have_two_gateways(tmp_path: Path) -> None:
    async with gateway(tmp_path / "a") as one, gateway(tmp_path / "b") as two:
        assert one.address != two.address
        assert len(gateways_below(tmp_path)) == 2


# What goes wrong.


async def test_one_that_was_killed_is_started_again_on_its_port(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, model(backend)) as one:
        for _ in range(2):
            address = one.address
            before = process_of(tmp_path)
            pidfd.send(before, signal.SIGKILL)
            await pidfd.exited(before)
            await until_answer(one, client, 200)
            assert one.address == address
            assert process_of(tmp_path) != before
    assert gateways_below(tmp_path) == []


async def test_a_taken_over_one_that_was_killed_is_started_again_too(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, keep=True):
        pass
    async with gateway(tmp_path, model(backend)) as one:
        pidfd.send(process_of(tmp_path), signal.SIGKILL)
        await until_answer(one, client, 200)


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    async with gateway(tmp_path / "a") as one:
        (tmp_path / "b").mkdir()
        with pytest.raises(StartError) as refused:
            async with gateway(tmp_path / "b", listen=ListenAddress.parse(one.address)):
                pass
        assert str(refused.value) == (
            f"the gateway cannot listen on {one.address}: Address already in use. Stop the other program, or choose "
            "another --gateway-listen"
        )
        assert gateways_below(tmp_path / "b") == []


async def test_a_foreign_address_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign requested address"):
        async with gateway(tmp_path, listen=ListenAddress("192.0.2.1", 0)):
            pass


async def test_one_that_does_not_come_up_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "aiohttp.py").write_text("raise SystemExit('this installation is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(StartError, match=r"does not come up: this installation is broken \(.*gateway\.log\)"):
        async with gateway(tmp_path):
            pass
    assert gateways_below(tmp_path) == []


@pytest.mark.parametrize("content", [None, "\n"])
async def test_a_file_without_keys_is_told_at_the_start(tmp_path: Path, content: str | None) -> None:
    keys = tmp_path / "keys"
    if content is not None:
        keys.write_text(content)
    with pytest.raises(StartError, match="--gateway-api-key-file: "):
        async with gateway(tmp_path, api_key_file=keys):
            pass


async def test_keys_are_on_no_command_line_and_in_no_environment(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-very-secret-key\n")
    async with gateway(tmp_path, model(backend, api_key="backends-key"), api_key_file=keys) as one:
        async with await ask(one, client) as answer:
            assert answer.status == 401
        headers = {"Authorization": "Bearer a-very-secret-key"}
        async with client.post(f"http://{one.address}{CHAT}", json={"model": "m"}, headers=headers) as answer:
            assert answer.status == 200
        process = proc.PROC / str(process_of(tmp_path).pid)
        for name in ("cmdline", "environ"):
            content = (process / name).read_bytes()
            assert b"a-very-secret-key" not in content
            assert b"backends-key" not in content


async def test_its_metrics_are_the_runners(tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession) -> None:
    async with gateway(tmp_path, model(backend)) as one:
        async with await ask(one, client):
            pass
        assert gauge(one, "slipway_gateway_up") == 1
        asked = {"model": "m", "path": CHAT, "code": "200"}
        assert gauge(one, "slipway_gateway_requests_total", **asked) == 1
        assert gauge(one, "slipway_gateway_in_flight", model="m") == 0
        assert gauge(one, "slipway_gateway_first_byte_seconds_count", model="m") == 1
        assert gauge(one, "slipway_gateway_process_resident_memory_bytes") or 0 > 1 << 20
        metrics = one.metrics
    assert [sample.value for family in metrics.collect() for sample in family.samples] == [0]


# Its memory.


async def test_a_client_that_reads_slowly_costs_no_memory(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    written = 0
    blocked = anyio.Event()

    async def flood(request: Any) -> Any:
        nonlocal written
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        while not blocked.is_set():
            with anyio.move_on_after(1.0) as patience:
                await response.write(bytes(1 << 16))
                written += 1 << 16
            if patience.cancelled_caught:
                blocked.set()
        await anyio.sleep_forever()

    backend.answer = flood
    async with gateway(tmp_path, model(backend)) as one:
        pid = process_of(tmp_path).pid
        before = resident_bytes(pid)
        async with await ask(one, client):
            with anyio.fail_after(60):
                await blocked.wait()
            assert resident_bytes(pid) - before < 8 << 20
            assert written < 64 << 20  # what kernels hold on two connections


async def test_prompts_are_not_kept_while_their_answers_stream(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    streams, size = 24, 4 << 20
    raw = b'{"model":"m","a":"' + b"x" * size + b'"}'
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend)) as one:
        pid = process_of(tmp_path).pid
        before = resident_bytes(pid)
        for _ in range(streams):
            stream = await client.post(f"http://{one.address}{CHAT}", data=pieces_of(raw))
            assert await stream.content.readany() == b"one"
        assert (await one.use())["uid of m"].in_flight == streams
        assert resident_bytes(pid) - before < streams * size / 2  # some is left of the last ones


async def test_nothing_is_logged_for_what_clients_do(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    backend.answer = for_ever
    async with gateway(tmp_path, model(backend)) as one:
        for _ in range(20):
            with anyio.move_on_after(0.02):
                await ask(one, client)
            async with client.post(f"http://{one.address}/v1/nothing", data=b"\0") as answer:
                assert answer.status == 404
        with anyio.fail_after(10):
            while any(use.in_flight for use in (await one.use()).values()):
                pass
        assert (tmp_path / "gateway.log").read_text() == ""


def gauge(one: Gateway, name: str, **labels: str) -> float | None:
    for family in one.metrics.collect():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def limits(pid: int) -> list[str]:
    return (proc.PROC / str(pid) / "limits").read_text().splitlines()


async def pieces_of(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 1 << 20):
        yield raw[start : start + (1 << 20)]


def test_a_place_is_the_same_by_any_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert Place(tmp_path / "link").instance == Place(tmp_path).instance
