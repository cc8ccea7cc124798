"""What the runner writes down about its models, so that the next one finds them again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog
from pydantic import TypeAdapter, ValidationError

from slipway_runner.backends.base import LaunchPlan, Task
from slipway_runner.models.plan import Plan
from slipway_runner.models.record import Model
from slipway_runner.models.states import Life
from slipway_runner.process.adopt import Trace
from slipway_runner.process.journal import Entry, Journal, Unreadable

_log = structlog.get_logger(__name__)

_ACTIVE = "active"

# A full disk is usually found and emptied by somebody; until then models run on, and only a restart would lose them.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A started process: which one, how, where in the log its own output begins, and the FIFO that it reads."""

    trace: Trace
    plan: LaunchPlan
    log_start: int
    stdin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A model as the journal holds it; `started` is None while it has no process."""

    model: Model
    life: Life
    plan: Plan
    started: Started | None = None


_SAVED = TypeAdapter(Saved)


class Scribe:
    """Writes the journal in a thread, the newest of each entry only, so that a slow disk never holds up the event
    loop.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder)
        self._waiting: dict[str, Mapping[str, Any] | None] = {}
        self._news = anyio.Event()
        self._writing = anyio.Lock()

    def save(self, saved: Saved) -> None:
        """Have the model's entry replaced soon."""
        self._put(saved.model.uid, _SAVED.dump_python(saved, mode="json"))

    def forget(self, uid: str) -> None:
        """Have the model's entry removed soon."""
        self._put(uid, None)

    def save_active(self, active: Mapping[Task, str]) -> None:
        """Have the active models' entry replaced soon."""
        self._put(_ACTIVE, {"models": dict(active)})

    def set_aside(self, name: str) -> None:
        """Keep an entry that cannot be used where nobody reads it again."""
        self._journal.set_aside(name)

    def close(self) -> None:
        """Let another runner have the journal."""
        self._journal.close()

    def _put(self, name: str, body: Mapping[str, Any] | None) -> None:
        self._waiting[name] = body
        self._news.set()

    async def run(self) -> None:
        """Write what comes, for ever. What a failing disk refuses is tried again."""
        while True:
            await self._news.wait()
            if not await self.flush():
                await anyio.sleep(_RETRY_SECONDS)

    async def flush(self) -> bool:
        """Write all that waits. Returns whether the disk took it; what it did not take goes on waiting."""
        async with self._writing:
            self._news = anyio.Event()
            waiting, self._waiting = self._waiting, {}
            try:
                await anyio.to_thread.run_sync(self._write, waiting)
            except OSError as error:
                _log.error("the journal cannot be written", error=str(error), entries=len(waiting))
                self._waiting = {**waiting, **self._waiting}
                self._news.set()
                return False
            return True

    def _write(self, waiting: Mapping[str, Mapping[str, Any] | None]) -> None:
        for name, body in waiting.items():
            if body is None:
                self._journal.remove(name)
            else:
                self._journal.write(name, body)

    def read(self) -> tuple[list[Saved], list[Unreadable], Mapping[Task, str]]:
        """What an earlier runner wrote: models, entries that cannot be used, active models."""
        models: list[Saved] = []
        unreadable: list[Unreadable] = []
        active: Mapping[Task, str] = {}
        for entry in self._journal.read_all():
            match entry:
                case Unreadable():
                    unreadable.append(entry)
                case Entry(name=name, body=body) if name == _ACTIVE:
                    active = {Task(task): model for task, model in body["models"].items()}
                case Entry(name=name, body=body):
                    try:
                        models.append(_SAVED.validate_python(body))
                    except ValidationError as error:
                        unreadable.append(Unreadable(name, str(error)))
        return models, unreadable, active
