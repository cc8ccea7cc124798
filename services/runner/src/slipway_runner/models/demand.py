"""Models that are gone to make room or for being idle, and come back when the gateway is asked for them.

Declared so by `Spec.load_on_demand`. They are no models any more: nothing runs, nothing is pinned, Get does not find
them. What is kept is the order to load them again.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

import anyio
import structlog
from slipway_service.fault import Fault

from slipway_runner.models.record import Activation, Model
from slipway_runner.models.spec import Spec
from slipway_runner.models.states import State

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dormant:
    """One of them: what it was when it was unloaded, and how it was asked for then."""

    model: Model
    asked: Spec

    @property
    def activation(self) -> Activation:
        """It becomes the active one again if it was and nobody has taken its place."""
        return Activation.IF_NONE if self.model.active else Activation.NEVER


Wanted = Callable[[], Awaitable[Collection[str]]]
"""Waits until requests have named dormant models; their ids."""


async def asked_for_by_nobody() -> Collection[str]:
    """Where there is no gateway."""
    await anyio.sleep_forever()
    raise AssertionError


ShowDormant = Callable[[Mapping[str, Dormant]], None]
"""Told all of them whenever one comes or goes."""


def shown_to_nobody(_dormant: Mapping[str, Dormant]) -> None:
    """Where there is no gateway nobody can ask for them."""


class Demand:
    """All of them, by id.

    Args:
        known: what the journal remembers.
        wanted: which are asked for.
        show, save: told of all of them, at first and after each change.
    """

    def __init__(self, known: Mapping[str, Dormant], wanted: Wanted, show: ShowDormant, save: ShowDormant) -> None:
        self._models = dict(known)
        self._wanted = wanted
        self._show = show
        self._save = save
        show(self._models)

    def add(self, model: Model, asked: Spec) -> None:
        """A model is being unloaded, and may come back if it was declared so."""
        if model.spec.load_on_demand:
            rest = replace(model, state=State.UNLOADED, pid=0, pids=(), port=0, api_key=None, message="")
            self._models[model.id] = Dormant(model=rest, asked=asked)
            self._changed()

    def discard(self, model_id: str) -> Dormant | None:
        """It is loaded again, or shall not come back. Returns what was known of it."""
        found = self._models.pop(model_id, None)
        if found is not None:
            self._changed()
        return found

    async def watch(self, load: Callable[[Dormant], Awaitable[None]]) -> None:
        """Have those loaded that are asked for, for ever."""
        async with anyio.create_task_group() as tasks:
            while True:
                for model_id in await self._wanted():
                    if (found := self._models.get(model_id)) is not None:
                        tasks.start_soon(self._wake, found, load)

    async def _wake(self, dormant: Dormant, load: Callable[[Dormant], Awaitable[None]]) -> None:
        model_id = dormant.model.id
        _log.info("loading a model on demand", id=model_id)
        try:
            await load(dormant)
        except Fault as fault:
            _log.warning("a model cannot be loaded on demand", id=model_id, why=fault.text)
            # Whoever asks next is told, and it is tried again.
            if self._models.get(model_id) is dormant:
                self._models[model_id] = replace(dormant, model=replace(dormant.model, message=fault.text))
                self._changed()
        except Exception:
            _log.exception("a model cannot be loaded on demand", id=model_id)

    def _changed(self) -> None:
        self._show(self._models)
        self._save(self._models)
