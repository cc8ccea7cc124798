"""The runner's way to its gateway: HTTP on a Unix socket in the state directory, which only this user may open.

A socket rather than a file, because the table holds the backends' keys, which belong on no disk, and because a drain
is a question that waits for its answer. Nothing depends on the runner being there: the last table holds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from slipway_runner.gateway.proxy import Proxy
from slipway_runner.gateway.routes import Route, Table

SOCKET = "gateway.sock"

RETIRED = "gateway.{pid}.sock"
"""What the socket of a gateway is called while that one only finishes what it has begun."""

MOST_TABLE_BYTES = 16 << 20
"""Of a table; a route takes less than 1 KiB."""


@contextmanager
def reachable(socket: Path) -> Iterator[str]:
    """The path of a socket as bind(2) and connect(2) take it, 107 bytes at most: through the directory's descriptor."""
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


@dataclass(slots=True)
class Stop:
    """The wish that the process ends.

    Attributes:
        asked: somebody wishes so.
        seconds: that answers under way may then take.
        closed: nobody can connect any more.
    """

    asked: anyio.Event
    closed: anyio.Event
    seconds: float

    def ask(self, seconds: float) -> None:
        """Wish it."""
        self.seconds = seconds
        self.asked.set()


class Control:
    """What the runner may ask.

    Args:
        proxy: the public side.
        setup: told back to the runner, which compares it with what it wants.
        address: HOST:PORT of the public side.
        stop: to be asked for.
        metrics: what is shown.
    """

    def __init__(self, proxy: Proxy, *, setup: str, address: str, stop: Stop, metrics: CollectorRegistry) -> None:
        self._proxy = proxy
        self._setup = setup
        self._address = address
        self._stop = stop
        self._metrics = metrics

    def server(self, shutdown_seconds: float) -> web.AppRunner:
        """What serves it; a drain ends with the runner that waits for it."""
        application = web.Application(client_max_size=MOST_TABLE_BYTES)
        application.router.add_get("/hello", self.hello)
        application.router.add_put("/table", self.table)
        application.router.add_post("/drain", self.drain)
        application.router.add_get("/use", self.use)
        application.router.add_get("/demand", self.demand)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_post("/stop", self.stop)
        return web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=shutdown_seconds)

    async def hello(self, _request: web.Request) -> web.Response:
        """Who serves here, where, and as what; nobody does who has been told to end."""
        if self._stop.asked.is_set():
            raise web.HTTPServiceUnavailable
        return web.json_response({"pid": os.getpid(), "address": self._address, "setup": self._setup})

    async def table(self, request: web.Request) -> web.Response:
        """Replace the table."""
        routes = (await request.json())["routes"]
        self._proxy.replace_table(Table(Route.from_json(one) for one in routes))
        return web.json_response({})

    async def drain(self, request: web.Request) -> web.Response:
        """Wait until a model, to which the table sends nobody any more, has answered the requests that it has."""
        asked = await request.json()
        idle = await self._proxy.traffic.idle(asked["uid"], float(asked["seconds"]))
        return web.json_response({"idle": idle})

    async def use(self, _request: web.Request) -> web.Response:
        """Requests in flight and last use, by uid."""
        return web.json_response(self._proxy.traffic.use())

    async def demand(self, request: web.Request) -> web.Response:
        """Wait until requests have named models that are loaded on demand, for so many seconds; their ids."""
        wanted = await self._proxy.demand.take(float(request.query["seconds"]))
        return web.json_response({"wanted": wanted})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=generate_latest(self._metrics), content_type="text/plain")

    async def stop(self, request: web.Request) -> web.Response:
        """Take no more connections, which is so when this has answered; finish what is under way, and end."""
        self._stop.ask(float((await request.json())["seconds"]))
        await self._stop.closed.wait()
        return web.json_response({})
