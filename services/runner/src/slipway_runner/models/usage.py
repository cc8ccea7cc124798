"""When models were last used, as the gateway counts it, and unloading those that nobody uses any more."""

import math
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
    supervisors: Iterable[Supervisor],
    use_of: UseOf,
    unload: Callable[[Supervisor, str], None],
    *,
    seconds: float,
    wall: Callable[[], float],
) -> None:
    """Keep `use_time` current and `unload` what has been idle for its TTL, saying why, for ever.

    A gateway that does not answer says nothing about use, so nothing is unloaded then.
    """
    idleness = Idleness()
    while True:
        idleness.look((supervisor.model for supervisor in supervisors), anyio.current_time(), wall())
        await anyio.sleep(seconds)
        if await refresh(supervisors, use_of):
            idleness.look((supervisor.model for supervisor in supervisors), anyio.current_time(), wall())
            for supervisor in supervisors:
                if idleness.over(supervisor.model, anyio.current_time()):
                    _log.info("unloading an idle model", id=supervisor.model.id, ttl=supervisor.model.spec.idle_ttl)
                    unload(supervisor, f"no request for {supervisor.model.spec.idle_ttl:g} s")


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


_Times = tuple[float, float]


class Idleness:
    """How long models have served nobody, by a clock that nobody sets: were it the wall's, setting that forward by an
    hour would make idle what was used a second ago.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[_Times, float]] = {}
        self._looked: float | None = None

    def look(self, models: Iterable[Model], clock: float, wall: float) -> None:
        """Take in when models were loaded and used.

        Args:
            models: all there are.
            clock: now, seconds of a monotonic clock.
            wall: now, Unix seconds. How long ago a use was that is new is believed as far as it can have been since the
                last look; at the first one, for models that a runner before this one has loaded, altogether.
        """
        passed = math.inf if self._looked is None else clock - self._looked
        before, self._since, self._looked = self._since, {}, clock
        for model in models:
            times = (model.load_time or 0.0, model.use_time or 0.0)
            known, since = before.get(model.uid, (None, 0.0))
            if known != times:
                since = clock - min(max(0.0, wall - max(times)), passed)
            self._since[model.uid] = times, since

    def over(self, model: Model, clock: float) -> bool:
        """Whether a model that was looked at has served nobody for as long as its TTL."""
        if model.state is not State.LOADED or not model.spec.idle_ttl:
            return False
        return clock - self._since[model.uid][1] >= model.spec.idle_ttl
