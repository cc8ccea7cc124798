"""Which model a request is for: a pure function of the table, the endpoint and the `model` field."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slipway_service.fault import Reason

RETRY_AFTER_LOADING = 2
"""Seconds after which a client asks again for a model that is loading; progress moves visibly in that time."""

ENDPOINT_TASKS: Mapping[str, str] = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/embeddings": "embed",
    "/v1/rerank": "rerank",
}
"""The paths that are served, and the task whose active model answers where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model as the gateway needs it.

    Attributes:
        id, uid, aliases, repo_id: what a request may call it.
        task: `generate`, `embed` or `rerank`.
        state: a `ModelState`, for example `LOADED`.
        active: whether requests of its task that name no model go to it.
        draining: no new requests: it is about to be stopped.
        host, port: where its backend listens.
        served_name: what the backend wants in the `model` field.
        api_key: what the backend wants as bearer; None for nothing.
        paths: the backend's path for each of the gateway's.
        fraction, detail: how far a load is.
        create_time: Unix seconds.
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

    @property
    def serving(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state == "LOADED" and not self.draining

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Route":
        """From `to_json`; what a newer runner added is left out."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{**known, "aliases": tuple(known.get("aliases", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is answered here, in OpenAI's form: HTTP status, our reason, words, and when to ask again."""

    status: int
    reason: Reason
    text: str
    retry_after: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


class Table:
    """The models of a host. Replaced as a whole."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._by_name: dict[str, Route] = {}
        # An id wins over an alias, an alias over a repository; of several the one that serves.
        for names in (_repo_names, _aliases, _ids):
            for route in sorted(self.routes, key=_serving_last):
                self._by_name.update(dict.fromkeys(names(route), route))

    def choose(self, path: str, model: str | None) -> Route | Refusal:
        """The model that a request to `path` is for; None or an empty text names none."""
        task = ENDPOINT_TASKS[path]
        if not model:
            return self._active(task)
        route = self._by_name.get(model)
        if route is None:
            known = ", ".join(sorted(one.id for one in self.routes)) or "none"
            return Refusal(
                status=404, reason=Reason.MODEL_NOT_FOUND, text=f"There is no model {model}; there are: {known}."
            )
        if path not in route.paths and route.paths:
            text = f"{route.id} serves {', '.join(sorted(route.paths))}, not {path}."
            return Refusal(status=400, reason=Reason.INVALID_FIELDS, text=text)
        return route if route.serving else _not_now(route)

    def _active(self, task: str) -> Route | Refusal:
        route = next((one for one in self.routes if one.active and one.task == task), None)
        if route is None:
            text = f"No model is active for {task}: load one, or name one in `model`."
            return Refusal(status=503, reason=Reason.NO_ACTIVE_MODEL, text=text)
        return route if route.serving else _not_now(route)


def _not_now(route: Route) -> Refusal:
    if route.state == "LOADING":
        return Refusal(
            status=503,
            reason=Reason.MODEL_NOT_LOADED,
            text=f"{route.id} is loading ({route.fraction:.0%}): {route.detail or 'ask again'}.",
            retry_after=RETRY_AFTER_LOADING,
            facts={"state": route.state, "progress": round(route.fraction, 4)},
        )
    passing = route.draining or route.state in {"UNHEALTHY", "RESTARTING"}
    return Refusal(
        status=503,
        reason=Reason.MODEL_UNLOADING if route.draining or route.state == "UNLOADING" else Reason.MODEL_NOT_LOADED,
        text=f"{route.id} is {'draining' if route.draining else route.state}.",
        retry_after=RETRY_AFTER_LOADING if passing else None,
        facts={"state": route.state},
    )


def _ids(route: Route) -> tuple[str, ...]:
    return (route.id,)


def _aliases(route: Route) -> tuple[str, ...]:
    return route.aliases


def _repo_names(route: Route) -> tuple[str, ...]:
    return (route.repo_id,) if route.repo_id else ()


def _serving_last(route: Route) -> tuple[bool, bool]:
    return route.serving, route.active
