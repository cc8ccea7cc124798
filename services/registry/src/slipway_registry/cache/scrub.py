"""The scrub: files of the cache are hashed again in the background, those first whose last hash is oldest.

Where it is, the times of the last hashes say, which are stored with each file that is done: a restart costs the file
that was being hashed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import anyio
import structlog
from anyio import to_thread
from slipway_service.fault import Fault
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import RepoId

from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.paced import PacedHash, idly
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.cache.verify import FindingKind, Verification
from slipway_registry.jobs.board import in_thread
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 60.0
_LOOKS_PER_INTERVAL = 10
"""How often (seconds) it is looked whether a file is due: a minute early or late is nothing to an interval of days."""

_BATCH_BYTES = 1 << 30
"""Hashed before the books are read again, which costs milliseconds and shows how far the scrub is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubSettings:
    """How often files are hashed again, seconds (0: never), and how many bytes of them a second at most."""

    interval: float
    rate: float


class Observer(Protocol):
    """Counts what the scrub does."""

    def hashed(self, count: int) -> None:
        """So many bytes."""
        ...

    def damaged(self) -> None:
        """A file whose hash is wrong, or that cannot be read."""
        ...


class Scrub:
    """Looks after a cache whose books are kept. For the keeper's event loop."""

    def __init__(self, keeper: Keeper, store: Store, settings: ScrubSettings, observer: Observer) -> None:
        self._keeper = keeper
        self._store = store
        self._settings = settings
        self._observer = observer
        self._hasher = PacedHash(settings.rate) if settings.interval else None
        self._core = OneCore()
        self._tried: dict[tuple[RepoId, str], float] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Scrub"]:
        """Scrub until the body ends."""
        async with anyio.create_task_group() as tasks:
            if self._settings.interval:
                pause = min(_LONGEST_PAUSE, self._settings.interval / _LOOKS_PER_INTERVAL)
                tasks.start_soon(self._keeper.repeat, pause, self.run)
            yield self
            tasks.cancel_scope.cancel()

    async def run(self) -> None:
        """Hash what is due, file after file, until nothing is."""
        # In a thread: looking through 1,000 repositories takes tens of milliseconds.
        while (due := await to_thread.run_sync(self.due)) is not None:
            await self._check(*due)

    def due(self) -> tuple[Snapshot, tuple[RepoFile, ...]] | None:
        """The snapshot with the file whose last hash is oldest, and those of its files that are due, oldest first."""
        oldest: tuple[float, Snapshot] | None = None
        latest = self._keeper.now() - self._settings.interval
        for snapshot in self._keeper.index.all():
            times = [time for time, _ in self._times(snapshot) if time <= latest]
            if times and (oldest is None or min(times) < oldest[0]):
                oldest = (min(times), snapshot)
        if oldest is None:
            return None
        _, snapshot = oldest
        files, size = [], 0
        for time, file in sorted(self._times(snapshot), key=lambda it: (it[0], it[1].path)):
            if time <= latest and size < _BATCH_BYTES:
                files.append(file)
                size += file.size_bytes
        return snapshot, tuple(files)

    def _times(self, snapshot: Snapshot) -> list[tuple[float, RepoFile]]:
        """The files that can be hashed and are not known to be damaged, each with the time of its last hash."""
        return [
            (max(it.verify_time or 0.0, self._tried.get((snapshot.repo, it.file.blob_id), 0.0)), it.file)
            for it in snapshot.files
            if it.sound and it.file.blob_id
        ]

    async def _check(self, snapshot: Snapshot, files: tuple[RepoFile, ...]) -> None:
        assert self._hasher is not None
        keeper = self._keeper
        work = Verification(
            keeper.shelf,
            self._store,
            keeper.records,
            snapshot.repo,
            snapshot.commit,
            files,
            core=self._core,
            hasher=self._hasher,
            clock=keeper.now,
        )
        halt = Halt()
        try:
            await in_thread(partial(idly, partial(work.run, halt)), halt)
        except Fault as fault:  # the database cannot be written: what was hashed is due again
            log.warning("what was hashed cannot be remembered", repo=snapshot.repo, error=str(fault))
            self._tried.update({(snapshot.repo, file.blob_id): keeper.now() for file in files})
        finally:
            self._observer.hashed(work.done_bytes)
        for finding in work.findings:
            self._tried[snapshot.repo, finding.expected] = keeper.now()
            if finding.kind is not FindingKind.MISSING:  # deleted meanwhile, and no news to the books
                self._observer.damaged()
                text = "a file of the cache is damaged: verify its snapshot with repair, or download it again"
                log.error(text, snapshot=snapshot.name, path=finding.path, found=finding.kind, detail=finding.detail)
        await keeper.refresh(work.repos, anew=True)
