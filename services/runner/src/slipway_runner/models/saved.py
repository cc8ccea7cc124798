"""What the runner writes down about its models, so that the next one finds them again."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import anyio
import structlog
from pydantic import TypeAdapter, ValidationError

from slipway_runner.backends.base import LaunchPlan, Task
from slipway_runner.models.demand import Dormant
from slipway_runner.models.plan import Plan
from slipway_runner.models.record import Model
from slipway_runner.models.states import Life
from slipway_runner.process.adopt import Trace
from slipway_runner.process.journal import Journal, Unreadable

_log = structlog.get_logger(__name__)


class _Names(StrEnum):
    """Entries that are no model's; those have uids."""

    ACTIVE = "active"
    DORMANT = "dormant"


# A full disk is usually found and emptied by somebody; until then models run on, and only a restart would lose them.
_RETRY_SECONDS = 1.0

# To write some kilobytes without syncing them takes a millisecond.
_SLOW_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A started process: which one, how, where in the log its own output begins, and the FIFO that it reads."""

    trace: Trace
    plan: LaunchPlan
    log_start: int
    stdin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A model as the journal holds it.

    Attributes:
        started: its process, None while it has none.
        boot_id: the boot of the host that this was written in; empty in entries of a version that did not say it.
    """

    model: Model
    life: Life
    plan: Plan
    started: Started | None = None
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """All that an earlier runner wrote: models, entries that cannot be used, active models, dormant ones by id."""

    models: tuple[Saved, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    active: Mapping[Task, str] = field(default_factory=dict)
    dormant: Mapping[str, Dormant] = field(default_factory=dict)


_SAVED = TypeAdapter(Saved)
_ACTIVE = TypeAdapter(dict[Task, str])
_DORMITORY = TypeAdapter(dict[str, Dormant])


class Scribe:
    """Writes the journal in threads, the newest of each entry only, so that a slow disk never holds up the event loop.

    Writing and syncing do not wait for each other: what a kill of the runner must not take away is written within
    milliseconds, also while the disk takes seconds to sync what came before.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder)
        self._waiting: dict[str, Mapping[str, Any] | None] = {}
        self._unsynced: set[str] = set()
        self._in_hand = 0
        self._refusal = ""
        self._news = anyio.Event()
        self._written = anyio.Event()
        self._writing = anyio.Lock()
        self._syncing = anyio.Lock()

    @property
    def refusal(self) -> str:
        """Why the disk refused the newest entries, which a restart would lose; empty when it took them."""
        return self._refusal

    @property
    def unwritten(self) -> int:
        """How many entries the disk does not have yet; one that has changed again meanwhile may count twice."""
        return len(self._waiting) + len(self._unsynced) + self._in_hand

    def save(self, saved: Saved) -> None:
        """Have the model's entry replaced soon."""
        self._put(saved.model.uid, _SAVED.dump_python(saved, mode="json"))

    def forget(self, uid: str) -> None:
        """Have the model's entry removed soon."""
        self._put(uid, None)

    def save_active(self, active: Mapping[Task, str]) -> None:
        """Have the active models' entry replaced soon."""
        self._put(_Names.ACTIVE, {"models": dict(active)})

    def save_dormant(self, dormant: Mapping[str, Dormant]) -> None:
        """Have the dormant models' entry replaced soon."""
        self._put(_Names.DORMANT, {"models": _DORMITORY.dump_python(dict(dormant), mode="json")} if dormant else None)

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
        """Write and sync what comes, for ever. What a failing disk refuses is tried again."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_for_ever)
            tasks.start_soon(self._sync_for_ever)

    async def flush(self) -> bool:
        """Write and sync all that waits. Returns whether the disk took it; what it did not take goes on waiting."""
        return await self._write_waiting() and await self._sync_written()

    async def _write_for_ever(self) -> None:
        while True:
            await self._news.wait()
            if not await self._write_waiting():
                await anyio.sleep(_RETRY_SECONDS)

    async def _sync_for_ever(self) -> None:
        while True:
            await self._written.wait()
            if not await self._sync_written():
                await anyio.sleep(_RETRY_SECONDS)

    async def _write_waiting(self) -> bool:
        async with self._writing:
            self._news = anyio.Event()
            waiting, self._waiting = self._waiting, {}
            began = anyio.current_time()
            try:
                with self._holding(len(waiting)):
                    await anyio.to_thread.run_sync(self._write, waiting)
            except OSError as error:
                self._refusal = str(error)
                _log.error("the journal cannot be written", error=str(error), entries=len(waiting))
                self._waiting = {**waiting, **self._waiting}
                self._news.set()
                return False
            self._refusal = ""
            if (took := anyio.current_time() - began) > _SLOW_SECONDS:
                _log.warning("the journal is slow; a kill just now would lose models", seconds=round(took, 2))
            self._unsynced.update(waiting)
            self._written.set()
            return True

    async def _sync_written(self) -> bool:
        async with self._syncing:
            self._written = anyio.Event()
            names, self._unsynced = self._unsynced, set()
            try:
                with self._holding(len(names)):
                    await anyio.to_thread.run_sync(self._sync, names)
            except OSError as error:
                _log.error("the journal cannot be synced", error=str(error), entries=len(names))
                self._unsynced |= names
                self._written.set()
                return False
            return True

    @contextmanager
    def _holding(self, entries: int) -> Iterator[None]:
        """So many are with the disk at present."""
        self._in_hand += entries
        try:
            yield
        finally:
            self._in_hand -= entries

    def _write(self, waiting: Mapping[str, Mapping[str, Any] | None]) -> None:
        for name, body in waiting.items():
            if body is None:
                self._journal.remove(name)
            else:
                self._journal.write(name, body)

    def _sync(self, names: Iterable[str]) -> None:
        for name in names:
            self._journal.sync(name)

    def read(self) -> Written:
        """What an earlier runner wrote."""
        models: list[Saved] = []
        unreadable: list[Unreadable] = []
        active: Mapping[Task, str] = {}
        dormant: Mapping[str, Dormant] = {}
        for entry in self._journal.read_all():
            if isinstance(entry, Unreadable):
                unreadable.append(entry)
                continue
            try:
                match entry.name:
                    case _Names.ACTIVE:
                        active = _ACTIVE.validate_python(entry.body.get("models"))
                    case _Names.DORMANT:
                        dormant = _DORMITORY.validate_python(entry.body.get("models"))
                    case _:
                        models.append(_SAVED.validate_python(entry.body))
            except ValidationError as error:
                unreadable.append(Unreadable(entry.name, str(error)))
        return Written(models=tuple(models), unreadable=tuple(unreadable), active=active, dormant=dormant)
