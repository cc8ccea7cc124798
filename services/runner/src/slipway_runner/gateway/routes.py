"""Which model a request is for: a pure function of the table, the endpoint and the `model` member."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slipway_service.fault import Reason

from slipway_runner.gateway.refusal import Refusal

RETRY_AFTER = 2
"""Seconds after which a client asks again for a model that is on its way; a load visibly moves in that time."""

ENDPOINT_TASKS: Mapping[str, str] = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/embeddings": "embed",
    "/v1/rerank": "rerank",
}
"""The paths that are served, and the task whose active model answers where none is named."""

_SHOWN_NAME = 100
"""Characters of a name that nobody has, in the answer that says so."""

_SHOWN_MODELS = 50
"""Models that such an answer names."""

_COMING = frozenset({"LOADING", "RESTARTING", "UNHEALTHY"})
"""States after which a model may serve (again) without anybody asking for it."""

_GOING = frozenset({"UNLOADING", "UNLOADED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model as the gateway needs it.

    Attributes:
        id, aliases, repo_id: what a request may call it.
        uid: which load of that id it is.
        task: `generate`, `embed` or `rerank`.
        state: a `ModelState`, for example `LOADED`.
        active: whether requests of its task that name no model go to it.
        draining: no new requests: it is about to be stopped.
        host, port: where its backend listens.
        served_name: what the backend wants in the `model` member.
        api_key: what the backend wants as bearer; None for nothing.
        paths: the backend's path for each of the gateway's.
        fraction: 0..1, how far a load is.
        detail: what it does, waits for or died of, in words.
        create_time: Unix seconds.
        on_demand: once UNLOADED it is loaded again for a request that names it.
    """

    id: str
    uid: str
    aliases: tuple[str, ...] = ()
    repo_id: str = ""
    task: str
    state: str
    active: bool = False
    draining: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    served_name: str = ""
    api_key: str | None = field(default=None, repr=False)
    paths: Mapping[str, str] = field(default_factory=dict)
    fraction: float = 0.0
    detail: str = ""
    create_time: float = 0.0
    on_demand: bool = False

    @property
    def serving(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state == "LOADED" and not self.draining

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Route":
        """From `to_json`."""
        return cls(**{**document, "aliases": tuple(document["aliases"])})


class Table:
    """The models of a host. Replaced as a whole."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._by_name: dict[str, Route] = {}
        # An id wins over an alias, an alias over a repository; of several, the one that serves.
        for names in (_repo_names, _aliases, _ids):
            for route in sorted(self.routes, key=_best_last):
                self._by_name.update(dict.fromkeys(names(route), route))

    def choose(self, path: str, model: str | None) -> Route | Refusal:
        """The model that a request is for.

        Args:
            path: one of `ENDPOINT_TASKS`.
            model: its name; None or an empty text names none.
        """
        route = self.find(model) if model else self._active(ENDPOINT_TASKS[path])
        if isinstance(route, Refusal):
            return route
        if not route.serving:
            return _not_now(route)
        if path not in route.paths:
            served = ", ".join(sorted(route.paths)) or "no endpoint"
            return Refusal(
                status=400, code=Reason.INVALID_FIELDS, text=f"{route.id} is for {route.task}: {served}, not {path}."
            )
        return route

    def find(self, model: str) -> Route | Refusal:
        """The model of that id, alias or repository, whatever it is doing."""
        if (route := self._by_name.get(model)) is not None:
            return route
        known = sorted(one.id for one in self.routes)
        names = ", ".join(known[:_SHOWN_MODELS]) or "none"
        more = f" and {len(known) - _SHOWN_MODELS} more" if len(known) > _SHOWN_MODELS else ""
        text = f"There is no model {model[:_SHOWN_NAME]}; there are: {names}{more}."
        return Refusal(status=404, code=Reason.MODEL_NOT_FOUND, text=text, passing=True)

    def _active(self, task: str) -> Route | Refusal:
        for route in self.routes:
            if route.active and route.task == task:
                return route
        text = f"No model is active for {task}: load one, or name one in `model`."
        return Refusal(status=503, code=Reason.NO_ACTIVE_MODEL, text=text, passing=True)


def _not_now(route: Route) -> Refusal:
    if route.state == "UNLOADED" and route.on_demand:
        return _asleep(route)
    going = route.draining or route.state in _GOING
    coming = not going and route.state in _COMING
    what = "is being unloaded" if going else f"is loading ({route.fraction:.0%})"
    if not going and route.state != "LOADING":
        what = f"is {route.state}"
    detail = f": {route.detail}" if route.detail and not going else ""
    return Refusal(
        status=503,
        code=Reason.MODEL_UNLOADING if going else Reason.MODEL_NOT_LOADED,
        text=f"{route.id} {what}{detail}",
        retry_after=RETRY_AFTER if coming or route.on_demand else None,
        facts={"state": route.state} | ({"progress": round(route.fraction, 4)} if route.state == "LOADING" else {}),
        passing=coming,
    )


def _asleep(route: Route) -> Refusal:
    """It is loaded for this request, and serves a later one, or this one if it is quick."""
    why = f"; at the last attempt: {route.detail}" if route.detail else ""
    return Refusal(
        status=503,
        code=Reason.MODEL_NOT_LOADED,
        text=f"{route.id} is loaded on demand, which begins now{why}",
        retry_after=RETRY_AFTER,
        facts={"state": route.state},
        passing=True,
        wants=route.id,
    )


def _ids(route: Route) -> tuple[str, ...]:
    return (route.id,)


def _aliases(route: Route) -> tuple[str, ...]:
    return route.aliases


def _repo_names(route: Route) -> tuple[str, ...]:
    return (route.repo_id,) if route.repo_id else ()


def _best_last(route: Route) -> tuple[bool, bool, bool, bool]:
    return route.serving, route.state in _COMING, route.active, route.on_demand
