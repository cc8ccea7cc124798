"""A runner that is killed under streams, and the next one."""

import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import aiohttp
import anyio
import pytest
from anyio.abc import Process
from slipway_runner.models.states import State

from tests.integration.runner.fakes import control, tell_on
from tests.integration.runner.gateway.processes import gateways_below
from tests.integration.runner.gateway.program import QUICK, STREAM, ServingBackend, runner

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient_adoption")]


@asynccontextmanager
async def killed_runner(root: Path) -> AsyncIterator[tuple[Process, str]]:
    """A runner in a process of its own, and its gateway's address."""
    argv = [sys.executable, "-m", "tests.integration.runner.gateway.program", str(root)]
    async with await anyio.open_process(argv, stdout=PIPE, stderr=None) as process:
        try:
            yield process, await serving(process)
        finally:
            if process.returncode is None:
                process.kill()


async def serving(process: Process) -> str:
    """What it says when its model is there."""
    assert process.stdout is not None
    said = b""
    with anyio.fail_after(60):
        while b"SERVING" not in said or not said.endswith(b"\n"):
            said += await process.stdout.receive()
    return said.partition(b"SERVING ")[2].split()[0].decode()


async def more(stream: aiohttp.ClientResponse, count: int) -> None:
    """Read so many more bytes of it."""
    with anyio.fail_after(60):
        assert await stream.content.readexactly(count) == b"." * count


async def test_no_stream_and_no_request_notices_that_the_runner_was_killed(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    statuses: Counter[int] = Counter()

    async with killed_runner(tmp_path) as (process, address):
        url = f"http://{address}"
        stream = await client.post(url + STREAM, json={"model": "m"})
        await more(stream, 3)
        async with anyio.create_task_group() as tasks:
            enough, asked_enough = anyio.Event(), anyio.Event()

            async def ask_again_and_again() -> None:
                while not enough.is_set():
                    async with client.post(url + QUICK, json={"model": "m"}) as answer:
                        statuses[answer.status] += 1
                        assert (await answer.json(content_type=None))["model"] == "m"
                asked_enough.set()

            tasks.start_soon(ask_again_and_again)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await more(stream, 10)
            (before,) = gateways_below(tmp_path)
            async with runner(tmp_path) as on:
                assert on.gateway.address == address
                assert gateways_below(tmp_path) == [before]
                model = await on.seen.state(State.LOADED)
                assert model.adopted
                await more(stream, 10)
                asked = statuses.total()
                with anyio.fail_after(60):
                    while statuses.total() < asked + 20:
                        await control(model, status=200)
                    enough.set()
                    await asked_enough.wait()
                use = (await on.gateway.use())[model.uid]
                assert use.in_flight >= 1
                assert set(statuses) == {200}

                # The new runner drains what the old one's clients hold open.
                on.fleet.unload("m")
                with anyio.fail_after(30):
                    refused = 200
                    while refused == 200:
                        async with client.post(url + QUICK, json={"model": "m"}) as answer:
                            refused = answer.status
                assert refused == 503
                await more(stream, 5)
                stream.close()
                await on.seen.until(lambda: bool(on.seen.gone))
    assert gateways_below(tmp_path) == []


async def test_an_upgrade_keeps_models_and_streams(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with runner(tmp_path, keep=True) as on:
        await on.load()
        stream = await client.post(f"http://{on.gateway.address}{STREAM}", json={})
        await more(stream, 3)
    await more(stream, 3)
    async with runner(tmp_path) as on:
        await more(stream, 3)
        async with client.post(f"http://{on.gateway.address}{QUICK}", json={}) as answer:
            assert answer.status == 200  # the active model is the same one
        stream.close()
    assert gateways_below(tmp_path) == []


async def test_a_backend_that_is_killed_cuts_its_streams_and_comes_back(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async with runner(tmp_path) as on:
        model = await on.load()
        url = f"http://{on.gateway.address}"
        seen: Counter[int] = Counter()
        stream = await client.post(url + STREAM, json={"model": "m"})
        await more(stream, 3)
        os.kill(model.pid, signal.SIGKILL)
        with anyio.fail_after(30):
            await stream.content.read()
        with anyio.fail_after(60):
            while not seen[200]:
                async with client.post(url + QUICK, json={"model": "m"}) as answer:
                    seen[answer.status] += 1
                    if answer.status != 200:
                        assert answer.headers["Retry-After"]
                        assert json.loads(await answer.read())["error"]["code"] in {
                            "BACKEND_UNRESPONSIVE",
                            "BACKEND_EXITED",
                            "MODEL_NOT_LOADED",
                        }
        assert set(seen) <= {200, 502, 503}


async def test_while_a_model_loads_its_shards_can_be_counted(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    behaviour = {"lines": ["SHARDS 3/10", None, "SHARDS 6/10", None, "SHARDS 9/10", None]}
    async with runner(tmp_path, backend=ServingBackend(behaviour=behaviour)) as on, anyio.create_task_group() as tasks:
        tasks.start_soon(on.load)
        url = f"http://{on.gateway.address}"
        shards: list[int] = []
        told: list[float] = []
        with anyio.fail_after(60):
            while True:
                async with client.post(url + QUICK, json={"model": "m"}) as answer:
                    if answer.status == 200:
                        break
                    error = (await answer.json())["error"]
                told.append(error.get("progress", 0.0))
                reading = re.search(r"loading weights: (\d+) of 10", error["message"])
                if reading is not None and int(reading[1]) not in shards:
                    shards.append(int(reading[1]))
                    tell_on(on.fleet)
        assert told == sorted(told)
        assert shards == [3, 6, 9]
        assert len({one for one in told if 0 < one < 1}) >= 3
