"""A backend on loopback that answers as a test tells it to, and remembers what it was asked."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web
from slipway_runner.backends.base import Task
from slipway_runner.backends.openai import PATHS
from slipway_runner.gateway.routes import Route
from slipway_runner.models.states import State


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def yes(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"answer": "yes"})


@dataclass
class Upstream:
    """`answer` is what it does with a request; `cancelled` tells that a client went away before it had its answer."""

    port: int = 0
    answer: Answer = yes
    asked: list[Asked] = field(default_factory=list)
    arrived: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)

    def route(self, model_id: str = "m", **more: Any) -> Route:
        """A loaded model that this is the backend of."""
        given = {
            "uid": f"uid of {model_id}",
            "task": Task.GENERATE,
            "state": State.LOADED,
            "port": self.port,
            "served_name": f"served/{model_id}",
            "paths": PATHS[Task.GENERATE],
            **more,
        }
        return Route(id=model_id, **given)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.path, headers, await request.read()))
        self.arrived.set()
        try:
            return await self.answer(request)
        except BaseException:
            self.cancelled.set()
            raise


@asynccontextmanager
async def upstream(answer: Answer = yes) -> AsyncIterator[Upstream]:
    one = Upstream(answer=answer)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.port = runner.addresses[0][1]
    try:
        yield one
    finally:
        await runner.cleanup()


async def for_ever(_request: web.Request) -> web.StreamResponse:
    """Say nothing."""
    await anyio.sleep_forever()
    raise AssertionError


def pieces(*chunks: bytes, then: Callable[[web.Request], None] | None = None) -> Answer:
    """Write chunks, one at a time; `then` do something to the connection instead of ending the answer."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then is not None:
            then(request)
            await anyio.sleep_forever()
        return response

    return answer


def cut(request: web.Request) -> None:
    """Break the connection off."""
    assert request.transport is not None
    request.transport.abort()


def stay(_request: web.Request) -> None:
    """Leave the answer open."""


class Spoken:
    """An answer that a test speaks word for word."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[bytes](100)

    async def say(self, word: bytes) -> None:
        await self._send.send(word)

    def end(self) -> None:
        self._send.close()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with self._send, self._receive:
            async for word in self._receive:
                await response.write(word)
        return response
