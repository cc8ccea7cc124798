"""A gateway's process, as a runner keeps it, and how to ask it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from slipway_runner.backends.base import Task
from slipway_runner.backends.openai import PATHS
from slipway_runner.gateway.keeper import Gateway, open_gateway
from slipway_runner.gateway.launch import Setup
from slipway_runner.models.record import Model
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.process.proc import ProcessId
from slipway_service.values import ListenAddress

from tests.integration.runner.gateway.processes import gateways_below
from tests.integration.runner.gateway.upstream import Upstream

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
    kept = {name: more.pop(name) for name in ("keep", "patience") if name in more}
    os.makedirs(folder, exist_ok=True)
    async with open_gateway(folder, Setup(listen=listen, **more), **kept) as one:
        for each in models:
            one.update(each.id, each)
        if complete:
            one.complete()
            await told(one)
        yield one


async def told(one: Gateway) -> None:
    """Wait until the process knows its table."""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(60):
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
    with anyio.fail_after(60):
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


def gauge(one: Gateway, name: str, **labels: str) -> float | None:
    """A sample of the metrics that the runner shows of it."""
    for family in one.metrics.collect():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


async def until_gauge(one: Gateway, expected: float, name: str, **labels: str) -> None:
    """Wait for a sample: a client may have the end of its answer a moment before that is counted."""
    with anyio.fail_after(30):
        while await anyio.to_thread.run_sync(partial(gauge, one, name, **labels)) != expected:
            await anyio.lowlevel.checkpoint()
