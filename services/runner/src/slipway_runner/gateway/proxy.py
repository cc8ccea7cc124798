"""Passing requests on: checked, rewritten, streamed chunk by chunk, cancelled when the client goes."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import anyio
from aiohttp import web
from slipway_service.fault import Reason

from slipway_runner.gateway.routes import ENDPOINT_TASKS, Refusal, Route, Table

MOST_BODY_BYTES = 32 * 1024 * 1024
"""Largest request: a long context with a few images in it."""

CONNECT_SECONDS = 5.0
"""To a backend on this host's loopback, which accepts in microseconds unless it hangs."""

_PASSED_ON = ("Content-Type", "Cache-Control", "Retry-After")
"""Headers of a backend's answer that clients get; its own server name, date and lengths are none of their business."""


class Traffic:
    """Requests in flight and the last use of each model, by uid; times are Unix seconds."""

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._last_use: dict[str, float] = {}
        self._ended = anyio.Event()

    @contextmanager
    def counted(self, uid: str) -> Iterator[None]:
        """One request, from its arrival to its end."""
        self._in_flight[uid] += 1
        self._last_use[uid] = time.time()
        try:
            yield
        finally:
            self._in_flight[uid] -= 1
            self._last_use[uid] = time.time()
            if not self._in_flight[uid]:
                del self._in_flight[uid]
                ended, self._ended = self._ended, anyio.Event()
                ended.set()

    def in_flight(self, uid: str) -> int:
        """How many requests the model is answering."""
        return self._in_flight[uid]

    async def idle(self, uid: str, seconds: float) -> bool:
        """Wait until the model answers no request, for so long at most; whether that came true."""
        with anyio.move_on_after(seconds):
            while self._in_flight[uid]:
                await self._ended.wait()
        return not self._in_flight[uid]

    def use(self) -> dict[str, dict[str, float]]:
        """For each model that was ever used: requests in flight, and when it was last used."""
        return {
            uid: {"in_flight": self._in_flight[uid], "last_use": last} for uid, last in list(self._last_use.items())
        }

    def forget_all_but(self, uids: set[str]) -> None:
        """Drop what is known of models that are gone."""
        self._last_use = {uid: last for uid, last in self._last_use.items() if uid in uids or self._in_flight[uid]}


class Proxy:
    """The HTTP application's handlers. `table` is replaced by the control socket."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.table = Table()
        self.traffic = Traffic()
        self._session = session

    def application(self) -> web.Application:
        """The public application."""
        application = web.Application(client_max_size=MOST_BODY_BYTES)
        for path in ENDPOINT_TASKS:
            application.router.add_post(path, self.infer)
        application.router.add_get("/v1/models", self.models)
        application.router.add_get("/health", self.health)
        return application

    async def health(self, _request: web.Request) -> web.StreamResponse:
        """Whether the gateway itself is there; models have their own."""
        return web.json_response({"status": "ok"})

    async def models(self, _request: web.Request) -> web.StreamResponse:
        """The models there are, in OpenAI's form, with what they are doing."""
        return web.json_response({"object": "list", "data": [_listed(route) for route in self.table.routes]})

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """An inference request: chosen, rewritten, passed on."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            text = f"The request is larger than {MOST_BODY_BYTES:,} bytes."
            return refuse(Refusal(status=413, reason=Reason.INVALID_FIELDS, text=text))
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("model") or "", str):
            text = "Send a JSON object, with the model's id or alias as text in `model`, or without `model`."
            return refuse(Refusal(status=400, reason=Reason.INVALID_FIELDS, text=text))
        chosen = self.table.choose(request.path, document.get("model"))
        if isinstance(chosen, Refusal):
            return refuse(chosen)
        if document.get("model") != chosen.served_name:
            body = json.dumps(document | {"model": chosen.served_name}, ensure_ascii=False).encode()
        with self.traffic.counted(chosen.uid):
            return await self._pass_on(request, chosen, body)

    async def _pass_on(self, request: web.Request, route: Route, body: bytes) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", "Accept": request.headers.get("Accept", "*/*")}
        if route.api_key:
            headers["Authorization"] = f"Bearer {route.api_key}"
        path = route.paths.get(request.path, request.path)
        url = f"http://{route.host}:{route.port}{path}"
        try:
            async with self._session.post(url, data=body, headers=headers) as answer:
                return await _stream(request, answer)
        except aiohttp.ClientConnectorError:
            text = f"{route.id} does not accept connections; it is being looked after."
            return refuse(Refusal(status=502, reason=Reason.BACKEND_UNRESPONSIVE, text=text, retry_after=2))
        except aiohttp.ClientError as error:
            text = f"{route.id} broke off before it had answered ({type(error).__name__})."
            return refuse(Refusal(status=502, reason=Reason.BACKEND_EXITED, text=text, retry_after=2))


def session() -> aiohttp.ClientSession:
    """The client that talks to backends: no limit on how long an answer takes, or on how many there are at once."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        read_bufsize=1 << 18,
    )


async def _stream(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass an answer on as it comes. Each write waits until the client has taken enough of the ones before.

    A backend that breaks off in the middle must not look like one that has finished: the client's connection is cut.
    """
    headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    response = web.StreamResponse(status=answer.status, headers=headers)
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError:
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def refuse(refusal: Refusal) -> web.Response:
    """An error as OpenAI's clients expect it."""
    error: dict[str, Any] = {
        "message": f"{refusal.reason}: {refusal.text}",
        "type": "invalid_request_error" if refusal.status < 500 else "server_error",
        "code": refusal.reason,
        "param": None,
        **refusal.facts,
    }
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after is not None else {}
    return web.json_response({"error": error}, status=refusal.status, headers=headers)


def _listed(route: Route) -> dict[str, Any]:
    return {
        "id": route.id,
        "object": "model",
        "created": int(route.create_time),
        "owned_by": "slipway",
        "aliases": list(route.aliases),
        "repo_id": route.repo_id,
        "task": route.task,
        "state": route.state,
        "active": route.active,
    }
