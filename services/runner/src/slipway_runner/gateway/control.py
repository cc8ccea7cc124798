"""The runner's way to its gateway: HTTP on a Unix socket in the state directory, which only this user may open.

A socket rather than a file, because the table holds the backends' keys, which belong on no disk, and because a drain
is a question that waits for its answer. Nothing depends on the runner being there: the last table holds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from aiohttp import web

from slipway_runner.gateway.proxy import Proxy
from slipway_runner.gateway.routes import Route, Table

SOCKET = "gateway.sock"
PROTOCOL = 1
"""Of what is said on the socket. A runner that finds a gateway of another protocol replaces it."""


@contextmanager
def reachable(socket: Path) -> Iterator[str]:
    """The path of a socket as bind(2) and connect(2) take it, 107 bytes at most: through the directory's descriptor."""
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


class Control:
    """What the runner may ask."""

    def __init__(self, proxy: Proxy, *, address: str, config: str, stop: anyio.Event) -> None:
        self._proxy = proxy
        self._address = address
        self._config = config
        self._stop = stop

    def application(self) -> web.Application:
        """The application behind the socket."""
        application = web.Application(client_max_size=1 << 24)
        application.router.add_get("/hello", self.hello)
        application.router.add_put("/table", self.table)
        application.router.add_post("/drain", self.drain)
        application.router.add_get("/use", self.use)
        application.router.add_post("/stop", self.stop)
        return application

    async def hello(self, _request: web.Request) -> web.Response:
        """Who serves here."""
        return web.json_response(
            {"protocol": PROTOCOL, "pid": os.getpid(), "address": self._address, "config": self._config}
        )

    async def table(self, request: web.Request) -> web.Response:
        """Replace the table; drains under way hold on."""
        routes = [Route.from_json(one) for one in (await request.json())["routes"]]
        self._proxy.table = Table(routes)
        self._proxy.traffic.forget_all_but({route.uid for route in routes})
        return web.json_response({})

    async def drain(self, request: web.Request) -> web.Response:
        """Wait until a model that gets no new requests has answered those it has."""
        asked = await request.json()
        idle = await self._proxy.traffic.idle(asked["uid"], float(asked["seconds"]))
        return web.json_response({"idle": idle})

    async def use(self, _request: web.Request) -> web.Response:
        """Requests in flight and last use, by uid."""
        return web.json_response(self._proxy.traffic.use())

    async def stop(self, _request: web.Request) -> web.Response:
        """End the process."""
        self._stop.set()
        return web.json_response({})
