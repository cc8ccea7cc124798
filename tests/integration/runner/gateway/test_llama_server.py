"""The gateway in front of the real llama-server."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest
from slipway_runner.backends.base import Host
from slipway_runner.backends.host import run_program
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.select import find_all
from slipway_runner.devices.inventory import Devices
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Model
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State

from deploy.backends.store import default_root
from tests.hub.models.demo import demo_models
from tests.integration.runner.gateway.program import Runner, runner

pytestmark = pytest.mark.anyio

COUNT = {"stream": True, "ignore_eos": True, "messages": [{"role": "user", "content": "please count"}]}
ENDLESS = {"context-shift": ""}
"""What the model never comes to an end with, and the flag without which its context is full in a second or two."""


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Runner]:
    """Must be there: `make backends` has built it, or it is on PATH."""
    path = tuple(map(Path, os.get_exec_path()))
    host = Host(search_path=path, run=run_program, installed=default_root(os.environ))
    found = Backends(adapters=(LlamaServer(),), found=find_all((LlamaServer(),), host))
    assert not found.unusable, found.unusable
    async with runner(
        tmp_path, backends=found, devices=lambda: Devices().look().all, paths=LocalPaths((demo_models(),))
    ) as one:
        yield one


async def load(on: Runner, name: str, model_id: str, **flags: str) -> Model:
    source = PathSource(path=demo_models() / name)
    await on.fleet.load(Spec(source=source, aliases=(f"{model_id}-alias",), flags=flags), model_id)
    model = await on.seen.state(State.LOADED, State.ERROR, model_id=model_id)
    assert model.state is State.LOADED, model.error
    return model


async def busy_slots(model: Model, client: aiohttp.ClientSession) -> int:
    """How many requests it works at, in its own words."""
    headers = {"Authorization": f"Bearer {model.api_key}"}
    async with client.get(f"http://127.0.0.1:{model.port}/slots", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return sum(slot["is_processing"] for slot in await answer.json())


async def words(stream: aiohttp.ClientResponse, count: int) -> list[str]:
    """The next words of a chat."""
    said: list[str] = []
    with anyio.fail_after(60):
        while len(said) < count:
            line = await stream.content.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: {"):
                said += [json.loads(line[6:])["choices"][0]["delta"].get("content") or ""]
    return said


async def test_it_answers_streams_and_is_cancelled(on: Runner, client: aiohttp.ClientSession) -> None:
    model = await load(on, "nano-chat-GGUF", "chat", **ENDLESS)
    embedder = await load(on, "tiny-embed-GGUF", "embed")
    url = on.gateway.endpoint

    for name in ({"model": "chat"}, {"model": "chat-alias"}, {}):
        body = {**name, "messages": [{"role": "user", "content": "hello"}]}
        async with client.post(f"{url}/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            assert (await answer.json())["choices"][0]["message"]["content"].strip() == "Hi! Two layers, no more."
    async with client.post(f"{url}/embeddings", json={"input": "hello"}) as answer:
        assert len((await answer.json())["data"][0]["embedding"]) == 128
    async with client.post(f"{url}/embeddings", json={"model": "chat", "input": "hello"}) as answer:
        assert answer.status == 400

    stream = await client.post(f"{url}/chat/completions", json=COUNT)
    assert stream.content_type == "text/event-stream"
    assert len(await words(stream, 20)) >= 20
    assert await busy_slots(model, client) == 1
    stream.close()
    with anyio.fail_after(30):
        while await busy_slots(model, client):
            pass
        while any(use.in_flight for use in (await on.gateway.use()).values()):
            pass
    assert set(await on.gateway.use()) == {model.uid, embedder.uid}


async def test_an_unload_ends_a_stream_that_will_not_end_itself(on: Runner, client: aiohttp.ClientSession) -> None:
    await load(on, "nano-chat-GGUF", "chat", **ENDLESS)
    stream = await client.post(f"{on.gateway.endpoint}/chat/completions", json=COUNT)
    await words(stream, 5)
    on.fleet.unload("chat", drain_seconds=5.0)
    await words(stream, 1)
    with anyio.fail_after(60):
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.content.read()
        await on.seen.until(lambda: bool(on.seen.gone))
