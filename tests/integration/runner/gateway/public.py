"""A gateway's public side in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from aiohttp import web
from slipway_runner.gateway import upstream
from slipway_runner.gateway.keys import ApiKeys
from slipway_runner.gateway.launch import STALL_SECONDS, listen_on
from slipway_runner.gateway.meters import Meters
from slipway_runner.gateway.proxy import Proxy
from slipway_runner.gateway.routes import Route, Table
from slipway_service.values import ListenAddress


@dataclass(frozen=True)
class Public:
    """Where it is, and what it is made of."""

    url: str
    port: int
    proxy: Proxy
    meters: Meters

    def count(self, code: int, model: str = "m", path: str = "/v1/chat/completions") -> float | None:
        """Requests that ended so."""
        labels = {"model": model, "path": path, "code": str(code)}
        return self.meters.registry.get_sample_value("slipway_gateway_requests_total", labels)

    async def counted(self, code: int, requests: int = 1) -> None:
        """Wait until so many have ended so: a client may have the end of its answer a moment before that is counted."""
        with anyio.fail_after(30):
            while self.count(code) != requests:  # noqa: ASYNC110
                await anyio.sleep(0.01)


@asynccontextmanager
async def public(
    *routes: Route, keys: Path | None = None, stall_seconds: int = STALL_SECONDS, told: bool = True
) -> AsyncIterator[Public]:
    """Serve these routes; with `told=False` as one whose runner has not told it any."""
    meters = Meters()
    async with upstream.session() as client:
        proxy = Proxy(client, ApiKeys(keys), meters)
        if told:
            proxy.replace_table(Table(routes))
        server = proxy.server(0.1)
        await server.setup()
        listener = listen_on(ListenAddress("127.0.0.1", 0), stall_seconds=stall_seconds)
        port = listener.getsockname()[1]
        await web.SockSite(server, listener).start()
        try:
            yield Public(f"http://127.0.0.1:{port}", port, proxy, meters)
        finally:
            await server.cleanup()


async def refused(answer: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    """The error that an answer is."""
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/json"
    assert answer.headers["Server"] == "slipway"
    error: dict[str, Any] = (await answer.json())["error"]
    assert error["message"].startswith(error["code"])
    return error


async def raw_connection(on: Public, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to write any bytes to."""
    return await asyncio.open_connection("127.0.0.1", on.port, limit=limit)
