"""The HTTP that clients see: requests are checked, named, passed on, streamed back, and cancelled with their client."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
import structlog
from aiohttp import web
from slipway_service.fault import Reason

from slipway_runner.gateway.demand import Demand
from slipway_runner.gateway.intake import read
from slipway_runner.gateway.keys import ApiKeys
from slipway_runner.gateway.meters import BROKEN_OFF, CLIENT_GONE, Meters
from slipway_runner.gateway.refusal import Refusal
from slipway_runner.gateway.routes import ENDPOINT_TASKS, RETRY_AFTER, Route, Table
from slipway_runner.gateway.traffic import Traffic
from slipway_runner.gateway.upstream import ask

_IDLE_SECONDS = 75.0
"""That a connection may be kept without a request on it; as nginx has it."""

HOLD_SECONDS = 0.25
"""That a request waits for a model that is not there yet: watchers are told LOADED some milliseconds before the gateway
is, and one of them may be fast; or the gateway has only just been started."""

_HEALTH = "/health"

_PASSED_ON = ("Content-Type", "Content-Encoding", "Cache-Control", "Retry-After", "X-Accel-Buffering")
"""Headers of a backend's answer that clients get; its own server name, date and cookies are none of their business."""

log = structlog.stdlib.get_logger("slipway.gateway")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Call:
    """A request under way. `model` is the id it goes to, `code` how it ended; it has not, so its client went."""

    request: web.Request
    model: str = ""
    code: int = CLIENT_GONE
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def refuse(self, refusal: Refusal) -> web.Response:
        self.code = refusal.status
        return refuse(refusal)


class Proxy:
    """The public side.

    Args:
        client: see `upstream.session`.
        keys: who may come in.
        meters: what is counted.

    Attributes:
        traffic: what is in flight.
        demand: models that requests wait for.
    """

    def __init__(self, client: aiohttp.ClientSession, keys: ApiKeys, meters: Meters) -> None:
        self.traffic = Traffic()
        self.demand = Demand()
        self._table: Table | None = None
        self._news = anyio.Event()
        self._client = client
        self._keys = keys
        self._meters = meters

    def replace_table(self, table: Table) -> None:
        """What the runner tells; before it has, clients are asked to wait."""
        self._table = table
        self.traffic.forget_all_but({route.uid for route in table.routes})
        news, self._news = self._news, anyio.Event()
        news.set()

    def server(self, shutdown_seconds: float) -> web.AppRunner:
        """What serves it; requests end with their client's connection."""
        application = web.Application(middlewares=[self._guard])
        for path in ENDPOINT_TASKS:
            application.router.add_post(path, self.infer)
        application.router.add_get("/v1/models", self.models)
        application.router.add_get("/v1/models/{model:.+}", self.model)
        application.router.add_get(_HEALTH, self.health)
        application.on_response_prepare.append(_sign)
        return web.AppRunner(
            application,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            shutdown_timeout=shutdown_seconds,
        )

    async def health(self, _request: web.Request) -> web.StreamResponse:
        """Whether the gateway itself is there; models have their own."""
        return web.json_response({"status": "ok"}) if self._table is not None else refuse(_STARTING)

    async def models(self, _request: web.Request) -> web.StreamResponse:
        """The models there are, in OpenAI's form, with what they are doing."""
        if self._table is None:
            return refuse(_STARTING)
        return web.json_response({"object": "list", "data": [_listed(route) for route in self._table.routes]})

    async def model(self, request: web.Request) -> web.StreamResponse:
        """One of them, by any of its names."""
        if self._table is None:
            return refuse(_STARTING)
        found = self._table.find(request.match_info["model"])
        return refuse(found) if isinstance(found, Refusal) else web.json_response(_listed(found))

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """An inference request."""
        call = _Call(request)
        try:
            return await self._infer(call)
        finally:
            self._meters.count(call.model, request.path, call.code)

    async def _infer(self, call: _Call) -> web.StreamResponse:
        body = await read(call.request)
        if isinstance(body, Refusal):
            return call.refuse(body)
        path = call.request.path
        route = await self._choose(path, body.model)
        if isinstance(route, Refusal):
            return call.refuse(route)
        with self._counted(call, route):
            accept = call.request.headers.get("Accept", "*/*")
            answer = await ask(self._client, route, path, body.naming(route.served_name), accept)
            del body  # prompts are large, and answers last for minutes
            if isinstance(answer, Refusal):
                return call.refuse(answer)
            async with answer:
                return await self._pass_on(call, answer)

    async def _choose(self, path: str, model: str | None) -> Route | Refusal:
        """The model that serves now or in a moment. No request is between two models when this returns."""
        with anyio.move_on_after(HOLD_SECONDS):
            while True:
                chosen = self._table.choose(path, model) if self._table is not None else _STARTING
                if isinstance(chosen, Route) or not chosen.passing:
                    return chosen
                if chosen.wants:
                    self.demand.add(chosen.wants)
                await self._news.wait()
        return chosen

    @contextmanager
    def _counted(self, call: _Call, route: Route) -> Iterator[None]:
        call.model = route.id
        self._meters.began(route.id)
        try:
            with self.traffic.counted(route.uid):
                yield
        finally:
            self._meters.ended(route.id, call.seconds)

    async def _pass_on(self, call: _Call, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass an answer on as it comes. Each write waits until the client has taken enough of those before.

        A backend that breaks off in the middle must not look like one that has finished: the client's connection is
        cut.
        """
        headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        response = web.StreamResponse(status=answer.status, headers=headers)
        if answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(call.request)
        first = True
        while True:
            try:
                chunk = await answer.content.readany()
            except aiohttp.ClientError:
                call.code = BROKEN_OFF
                _cut(call.request)
                return response
            if first:
                self._meters.first_byte(call.model, call.seconds)
                first = False
            if not chunk:
                break
            await response.write(chunk)
        await response.write_eof()
        call.code = answer.status
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Nobody without a key; and every error in OpenAI's form."""
        try:
            if request.path != _HEALTH and not self._keys.admit(request.headers.get("Authorization", "")):
                return refuse(_WRONG_KEY)
            return await handler(request)
        except web.HTTPException as error:
            return refuse(_unserved(request, error.status))
        except ConnectionError:
            return web.Response(status=CLIENT_GONE)  # which nobody will see
        except Exception:
            log.exception("a defect of the gateway", path=request.path)
            return refuse(Refusal(status=500, code=Reason.INTERNAL, text="internal error; the gateway's log has it"))


_STARTING = Refusal(
    status=503,
    code=Reason.MODEL_NOT_LOADED,
    text="The gateway does not know its models yet.",
    retry_after=RETRY_AFTER,
    passing=True,
)
_WRONG_KEY = Refusal(
    status=401, code="invalid_api_key", text="Send one of this gateway's keys as `Authorization: Bearer KEY`."
)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def refuse(refusal: Refusal) -> web.Response:
    """The answer that a refusal is."""
    return web.json_response(refusal.document(), status=refusal.status, headers=refusal.headers())


def _unserved(request: web.Request, status: int) -> Refusal:
    served = ", ".join((*(f"POST {path}" for path in ENDPOINT_TASKS), "GET /v1/models"))
    text = f"{request.method} {request.path[:100]} is not served here; what is: {served}."
    return Refusal(status=status, code=Reason.NOT_IMPLEMENTED, text=text)


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "slipway"


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
        "on_demand": route.on_demand,
    }
