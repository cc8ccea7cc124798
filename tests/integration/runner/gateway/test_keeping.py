"""What a runner tells its gateway, asks it, and leaves to it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from slipway_runner.gateway.keeper import open_gateway
from slipway_runner.gateway.launch import Setup
from slipway_runner.models.states import State
from slipway_runner.progress.signals import LoadStage
from slipway_runner.progress.tracker import LoadProgress
from slipway_service.values import ListenAddress

from tests.integration.runner.gateway.kept import (
    ANY_PORT,
    CHAT,
    ask,
    gateway,
    gauge,
    model,
    process_of,
    until_answer,
    until_gauge,
)
from tests.integration.runner.gateway.processes import resident_bytes
from tests.integration.runner.gateway.upstream import Spoken, Upstream, for_ever, pieces, stay, yes

pytestmark = pytest.mark.anyio


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
        with anyio.fail_after(30):
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
        with anyio.fail_after(30):
            await drained.wait()
        async with await ask(one, client, "other") as answer:
            assert answer.status == 200


async def test_a_drain_waits_no_longer_than_it_may(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend)) as one:
        async with await ask(one, client):
            with anyio.fail_after(30):
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
        with anyio.fail_after(30):
            while (after := (await one.use())["uid of m"]).in_flight:
                pass
        assert after.last_use > during.last_use > 0


# One runner after the other.


async def test_its_metrics_are_the_runners(tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession) -> None:
    async with gateway(tmp_path, model(backend)) as one:
        async with await ask(one, client) as answer:
            assert await answer.read()
        await until_gauge(one, 1, "slipway_gateway_up")
        asked = {"model": "m", "path": CHAT, "code": "200"}
        await until_gauge(one, 1, "slipway_gateway_requests_total", **asked)
        await until_gauge(one, 0, "slipway_gateway_in_flight", model="m")
        await until_gauge(one, 1, "slipway_gateway_first_byte_seconds_count", model="m")
        assert (gauge(one, "slipway_gateway_process_resident_memory_bytes") or 0) > 1 << 20
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
        with anyio.fail_after(30):
            while any(use.in_flight for use in (await one.use()).values()):
                pass
        assert (tmp_path / "gateway.log").read_text() == ""


async def pieces_of(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 1 << 20):
        yield raw[start : start + (1 << 20)]
