"""The named background tasks of one model: at most one of each name, each to be ended at any time."""

from collections.abc import Awaitable, Callable

import structlog
from anyio import CancelScope, get_cancelled_exc_class
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled
from slipway_service.fault import Fault, Reason

from slipway_runner.progress.signals import Cause

_log = structlog.get_logger(__name__)


class Activities:
    """Starts and ends them.

    Args:
        tasks: where they run.
        model_id: for the log.
        broken: told the name and the cause when one fails; it ends its model at worst, never the runner.
    """

    def __init__(self, tasks: TaskGroup, model_id: str, broken: Callable[[str, Cause], None]) -> None:
        self._tasks = tasks
        self._model_id = model_id
        self._broken = broken
        self._scopes: dict[str, CancelScope] = {}

    def start(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Start an activity in place of the one of that name."""
        self.end(name)
        scope = self._scopes[name] = CancelScope()
        self._tasks.start_soon(self._run, name, activity, scope)

    def end(self, *names: str) -> None:
        """Have them cancelled, those that run. One that ends itself this way goes on to its next wait."""
        for name in names:
            if (scope := self._scopes.pop(name, None)) is not None:
                scope.cancel()

    def end_all(self) -> None:
        """Have all of them cancelled."""
        self.end(*tuple(self._scopes))

    async def _run(self, name: str, activity: Callable[[], Awaitable[None]], scope: CancelScope) -> None:
        with scope:
            try:
                await activity()
            except Fault as fault:
                self._broken(name, Cause.of(fault))
            except Exception as error:
                self._unexpected(name, error)
            except get_cancelled_exc_class() as error:
                # Anybody's: a scope's own, which goes up from here anew, or one that a library raises by itself, which
                # would end the task group and so the supervision of every model.
                await checkpoint_if_cancelled()
                self._unexpected(name, error)
        if self._scopes.get(name) is scope:
            del self._scopes[name]

    def _unexpected(self, name: str, error: BaseException) -> None:
        _log.error("activity failed", model=self._model_id, activity=name, exc_info=error)
        self._broken(name, Cause(Reason.INTERNAL, f"internal error in {name}: {error!r}"))
