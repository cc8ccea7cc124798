"""The runner's pins, all together: given back when somebody wants the files gone, taken anew when they were lost.

What is pinned is compared with what runs, at every change of the pins and whenever the registry has come back. So
nothing depends on a call to it having been made at the right moment: a pin that could not be given back, or taken,
while it was away is put right as soon as it is there.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum

import anyio
import structlog
from slipway_service.fault import Fault

from slipway_runner.models.snapshots import Held, Snapshots
from slipway_runner.models.states import State
from slipway_runner.models.supervisor import Supervisor
from slipway_runner.models.usage import UseOf

_log = structlog.get_logger(__name__)

# A registry that refuses the watch altogether is older than it, or misconfigured: somebody has to see to that first.
_REFUSED_SECONDS = 60.0

# In these a model serves nobody's load: who asked for one that is LOADING is still waiting for it.
_SETTLED = frozenset({State.LOADED, State.UNHEALTHY, State.RESTARTING})

_WHY = "its files are to be deleted"
_REFUSAL = "this runner releases nothing (--release never); unload the model there"


class ReleasePolicy(StrEnum):
    """Whether a model is unloaded when the registry is asked to delete its files by force."""

    NEVER = "never"
    IDLE = "idle"
    ALWAYS = "always"


class Holds:
    """Keeps the pins of all models right, for as long as the runner runs.

    Args:
        models: the supervisors there are, each time anew.
        snapshots: who tells of the pins.
        policy: what follows when the files of a model are to be deleted.
        use_of: how many requests each model is answering.
        look_again: seconds until a model that was in use is looked at again.
    """

    def __init__(
        self,
        models: Iterable[Supervisor],
        snapshots: Snapshots,
        policy: ReleasePolicy,
        use_of: UseOf,
        *,
        look_again: float,
    ) -> None:
        self._models = models
        self._snapshots = snapshots
        self._policy = policy
        self._use_of = use_of
        self._look_again = look_again
        self._held: tuple[Held, ...] | None = None
        self._news = anyio.Event()

    async def keep(self) -> None:
        """Follow them, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            tasks.start_soon(self._settle)

    async def _follow(self) -> None:
        while True:
            try:
                async for held in self._snapshots.held():
                    self._held = held
                    self._news.set()
                return  # there is no registry
            except Fault as fault:
                _log.warning("the registry does not tell of this runner's pins", error=str(fault))
            await anyio.sleep(_REFUSED_SECONDS)

    async def _settle(self) -> None:
        while True:
            self._news = anyio.Event()
            settled = self._held is None or await self._compare(self._held)
            with anyio.move_on_after(None if settled else self._look_again):
                await self._news.wait()

    async def _compare(self, held: tuple[Held, ...]) -> bool:
        """Put right what differs. Returns whether nothing is left to be looked at again."""
        models = {one.model.uid: one for one in self._models if one.life.occupied or one.life.state is not State.ERROR}
        for uid in {one.holder for one in held} - models.keys():
            await self._snapshots.release(uid)
        unpinned = [models[uid] for uid in models.keys() - {one.holder for one in held}]
        for supervisor in unpinned:
            await self._take_again(supervisor)
        wanted = [models[one.holder] for one in held if one.wanted_back and one.holder in models]
        let_go = not wanted or await self._let_go(wanted)
        # A load takes its pin by itself, unless the registry is away just then: so it is looked at once more.
        return let_go and not any(one.life.state is State.LOADING and one.pin.want for one in unpinned)

    async def _take_again(self, supervisor: Supervisor) -> None:
        if (want := supervisor.pin.want) is None or supervisor.life.state not in _SETTLED:
            return
        try:
            await self._snapshots.renew(want)
        except Fault as fault:
            _log.warning("a running model's files are not pinned", id=supervisor.model.id, error=str(fault))
        else:
            _log.info("pinned the files of a running model", id=supervisor.model.id)

    async def _let_go(self, wanted: list[Supervisor]) -> bool:
        """Unload what may be. Returns whether nobody is left that may be later."""
        if self._policy is ReleasePolicy.NEVER:
            await self._refuse(wanted)
            return True
        may_go = await self._who_may_go()
        left = [one for one in wanted if one.life.state is not State.UNLOADING]
        for supervisor in left:
            if may_go(supervisor):
                _log.info("unloading a model whose files are to be deleted", id=supervisor.model.id)
                supervisor.unload(why=_WHY)
        return all(one.life.state is State.UNLOADING for one in left)

    async def _refuse(self, wanted: list[Supervisor]) -> None:
        for supervisor in wanted:
            if (want := supervisor.pin.want) is None or supervisor.life.state is State.UNLOADING:
                continue
            try:
                await self._snapshots.refuse(want, _REFUSAL)
            except Fault as fault:
                _log.warning("the registry was not told that a model stays", id=supervisor.model.id, error=str(fault))

    async def _who_may_go(self) -> Callable[[Supervisor], bool]:
        if self._policy is ReleasePolicy.ALWAYS:
            return lambda _: True
        try:
            used = await self._use_of()
        except Exception as error:
            _log.warning("the gateway does not say which models are used", error=repr(error))
            return lambda _: False
        busy = {uid for uid, use in used.items() if use.in_flight}
        return lambda one: one.life.state in _SETTLED and one.model.uid not in busy
