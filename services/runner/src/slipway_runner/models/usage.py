"""When models were last used, as the gateway counts it, and unloading those that nobody uses any more."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

import anyio
import structlog

from slipway_runner.models.record import Model
from slipway_runner.models.states import State
from slipway_runner.models.supervisor import Supervisor

_log = structlog.get_logger(__name__)


class Used(Protocol):
    """How a model is used: requests in flight, and when the last one came or ended, Unix seconds."""

    @property
    def in_flight(self) -> int:
        """Requests that it is answering."""

    @property
    def last_use(self) -> float:
        """When it was last used."""


UseOf = Callable[[], Awaitable[Mapping[str, Used]]]
"""How each model that was ever used is used, by uid."""


async def no_use() -> Mapping[str, Used]:
    """Where there is no gateway nothing is known of use; idleness counts from the load."""
    return {}


async def watch_use(
    supervisors: Iterable[Supervisor], use_of: UseOf, *, seconds: float, wall: Callable[[], float]
) -> None:
    """Keep `use_time` current and unload what has been idle for its TTL, for ever.

    A gateway that does not answer says nothing about use, so nothing is unloaded then.
    """
    while True:
        await anyio.sleep(seconds)
        if await refresh(supervisors, use_of):
            for supervisor in supervisors:
                if idle(supervisor.model, wall()):
                    _log.info("unloading an idle model", id=supervisor.model.id, ttl=supervisor.model.spec.idle_ttl)
                    supervisor.unload()


async def refresh(supervisors: Iterable[Supervisor], use_of: UseOf) -> bool:
    """Ask when models were last used, once. Returns whether there was an answer."""
    try:
        used = await use_of()
    except Exception as error:
        _log.warning("the gateway does not say which models are used", error=repr(error))
        return False
    for supervisor in supervisors:
        if (use := used.get(supervisor.model.uid)) is not None:
            last = supervisor.means.wall() if use.in_flight else use.last_use
            supervisor.model = replace(supervisor.model, use_time=last)
    return True


def idle(model: Model, now: float) -> bool:
    """Whether a model has served nobody for as long as its TTL."""
    if model.state is not State.LOADED or not model.spec.idle_ttl:
        return False
    return now - max(model.use_time or 0.0, model.load_time or 0.0) >= model.spec.idle_ttl
