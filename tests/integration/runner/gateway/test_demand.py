"""Models that come back when the gateway is asked for them."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from slipway_runner.devices.device import Device
from slipway_runner.models.record import Activation
from slipway_runner.models.states import State
from slipway_service.fault import Fault, Reason

from tests.integration.runner.fakes import QUICK as NUMBERS
from tests.integration.runner.fakes import cpu, tell_on
from tests.integration.runner.gateway.program import QUICK, Runner, ServingBackend, runner
from tests.integration.runner.test_room import Memory

pytestmark = pytest.mark.anyio

HASTY = replace(NUMBERS, use_scan=0.05)
HALFWAY: Mapping[str, Any] = {"lines": ["SHARDS 1/2", None]}


# Seconds: enough for the gateway to be told that a model is LOADED, and for a request to be there, also on a busy host.
SOON = 1.0


async def ask(client: aiohttp.ClientSession, on: Runner, model: str | None) -> aiohttp.ClientResponse:
    body = {"model": model} if model else {}
    answer = await client.post(f"http://{on.gateway.address}{QUICK}", json=body)
    await answer.read()
    return answer


async def until_answered(client: aiohttp.ClientSession, on: Runner, model: str) -> list[dict[str, Any]]:
    """Ask until there is an answer; what was said meanwhile."""
    said: list[dict[str, Any]] = []
    with anyio.fail_after(60):
        while (answer := await ask(client, on, model)).status != 200:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "2"
            said.append((await answer.json())["error"])
    return said


async def until_unknown(client: aiohttp.ClientSession, on: Runner, model: str) -> None:
    """The gateway is told a moment after everybody else."""
    with anyio.fail_after(30):
        while (await ask(client, on, model)).status != 404:
            pass


async def gone(on: Runner, model_id: str) -> None:
    await on.seen.until(lambda: any(one == model_id for one, _ in on.seen.gone))
    on.seen.gone.clear()


async def test_an_idle_model_comes_back_for_the_first_request_that_names_it(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    backend = ServingBackend()
    async with runner(tmp_path, backend=backend, numbers=HASTY) as on:
        first = await on.load(idle_ttl=SOON, load_on_demand=True, aliases=("other",))
        assert first.active
        await gone(on, "m")
        assert on.fleet.list() == []
        with anyio.fail_after(30):
            shown: dict[str, Any] = {"state": ""}
            while shown["state"] != "UNLOADED":
                async with client.get(f"http://{on.gateway.address}/v1/models/m") as listed:
                    shown = await listed.json()
        assert (shown["on_demand"], shown["active"]) == (True, False)
        assert (await ask(client, on, None)).status == 503  # names none, and wakes none
        assert on.fleet.list() == []

        backend.behaviours["m"] = HALFWAY
        said: list[dict[str, Any]] = []
        with anyio.fail_after(60):
            while not said or not said[-1].get("progress"):
                said.append((await (await ask(client, on, "other")).json())["error"])
        backend.behaviours["m"] = {}
        tell_on(on.fleet)
        await until_answered(client, on, "other")
        assert {one["code"] for one in said} == {"MODEL_NOT_LOADED"}
        progress = [one["progress"] for one in said if "progress" in one]
        assert progress == sorted(progress)
        again = await on.seen.state(State.LOADED)
        assert again.uid != first.uid
        assert again.active
        assert again.spec == first.spec


async def test_a_model_that_was_not_declared_so_stays_away(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with runner(tmp_path, numbers=HASTY) as on:
        await on.load(idle_ttl=0.1)
        await gone(on, "m")
        await until_unknown(client, on, "m")


async def test_what_somebody_has_unloaded_stays_away(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with runner(tmp_path, numbers=HASTY) as on:
        await on.load(load_on_demand=True)
        on.fleet.unload("m")
        await gone(on, "m")
        await until_unknown(client, on, "m")

        await on.load("n", load_on_demand=True, idle_ttl=SOON)
        await gone(on, "n")
        assert on.fleet.unload("n").state is State.UNLOADED
        await until_unknown(client, on, "n")
        assert on.fleet.list() == []
        with pytest.raises(Fault) as refused:
            on.fleet.unload("n")
        assert refused.value.reason is Reason.MODEL_NOT_FOUND


async def test_two_that_do_not_fit_take_turns(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    memory = Memory(1)

    def devices() -> tuple[Device, ...]:
        newest = {one.id: one for one in tuple(on.seen.models)}
        memory.taken = sum(one.pid > 0 for one in newest.values())
        return memory()

    async with runner(tmp_path, numbers=HASTY, devices=devices) as on:
        await on.load("a", load_on_demand=True, activation=Activation.NEVER)
        await on.load("b", load_on_demand=True, activation=Activation.NEVER, evict=True)
        for model_id, other in (("a", "b"), ("b", "a")):
            assert [one.id for one in on.fleet.list()] == [other]
            await until_answered(client, on, model_id)
            await on.seen.until_true(lambda: len(on.fleet.list()) == 1)


async def test_what_cannot_be_loaded_says_why_and_is_tried_again(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with runner(tmp_path, numbers=HASTY) as on:
        await on.load(load_on_demand=True, idle_ttl=SOON)
        await gone(on, "m")
        weights = on.models / "m.gguf"
        weights.rename(weights.with_suffix(".away"))
        with anyio.fail_after(30):
            while "at the last attempt: " not in (await (await ask(client, on, "m")).json())["error"]["message"]:
                pass
        weights.with_suffix(".away").rename(weights)
        await until_answered(client, on, "m")


async def test_a_defect_while_one_is_loaded_ends_nobody_and_it_is_tried_again(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    broken = False
    met = threading.Event()

    def devices() -> tuple[Device, ...]:
        if broken:
            met.set()
            raise RuntimeError("a defect")
        return cpu()

    async with runner(tmp_path, numbers=HASTY, devices=devices) as on:
        await on.load(load_on_demand=True, idle_ttl=SOON)
        await gone(on, "m")
        broken = True
        with anyio.fail_after(30):
            while not met.is_set():
                assert (await ask(client, on, "m")).status == 503
        broken = False
        await until_answered(client, on, "m")


async def test_the_next_runner_knows_them(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with runner(tmp_path, numbers=HASTY) as on:
        await on.load(load_on_demand=True, idle_ttl=SOON)
        await gone(on, "m")
    async with runner(tmp_path, numbers=HASTY) as on:
        await until_answered(client, on, "m")
        assert on.seen.states()[:2] == [State.LOADING, State.LOADED]
