"""Transitions in one order: decided by the table, stored, then told."""

from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

import structlog
from anyio import CancelScope, CapacityLimiter, Lock, to_thread
from slipway_service.fault import Fault, Reason

from slipway_registry.jobs import states
from slipway_registry.jobs.clock import Clock
from slipway_registry.jobs.job import Job
from slipway_registry.jobs.records import Download, Progress, State
from slipway_registry.jobs.run import at_rest
from slipway_registry.jobs.store import Entry, Store

log = structlog.get_logger(__name__)
T = TypeVar("T")

# How often (seconds) a transition is tried again while the database cannot be written.
STORE_RETRY = 5.0


class Listener(Protocol):
    """Told in the event loop, in revision order; must not block."""

    def transition(self, entry: Entry) -> None:
        """A download changed its state, was created, or was deleted."""
        ...

    def progress(self, download: Download, progress: Progress) -> None:
        """New figures of a running download."""
        ...


class Ledger:
    """The live downloads, and the one lock under which they change."""

    def __init__(self, store: Store, listener: Listener, clock: Clock) -> None:
        self.jobs: dict[str, Job] = {}
        self.clock = clock
        self._store = store
        self._listener = listener
        self._lock = Lock()
        self._thread = CapacityLimiter(1)  # the database has one writer anyway

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Nothing else changes meanwhile. A run that was cancelled by an earlier change does not get in."""
        async with self._lock:
            yield

    async def record(self, job: Job, event: states.Event) -> None:
        """Within `changing`: step, store, tell. Shielded, so that what is stored is also told.

        Raises:
            Fault: DOWNLOAD_STATE_CONFLICT; DISK_FULL or DISK_FAULT if the database cannot be written.
        """
        changed = states.step(job.current(self.clock.monotonic()), event, self.clock.now())
        if changed.state not in (State.RUNNING, State.VERIFYING):
            changed = replace(changed, progress=at_rest(changed.progress))
        with CancelScope(shield=True):
            job.download = await self.database(lambda: self._store.save(changed))
        if changed.state.terminal:
            del self.jobs[changed.id]
        self.tell(job.download)

    async def advance(self, job: Job, event: states.Event, *, only_from: Container[State] | None = None) -> None:
        """A transition by the run itself, tried until the database takes it.

        Args:
            only_from: do nothing if the download is in none of these states.
        """
        while True:
            async with self.changing():
                if only_from is not None and job.download.state not in only_from:
                    return
                try:
                    await self.record(job, event)
                except Fault as fault:
                    if fault.reason not in (Reason.DISK_FULL, Reason.DISK_FAULT):
                        raise
                    log.warning("the database cannot be written", download=job.download.id, error=fault.text)
                else:
                    return
            await self.clock.sleep(STORE_RETRY)

    def tell(self, download: Download) -> None:
        """Within `changing`: what has been stored."""
        log.info("download", id=download.id, repo=download.repo, state=download.state.value)
        self.tell_entry(Entry(revision=download.log_revision, name=download.name, uid=download.id, download=download))

    def tell_entry(self, entry: Entry) -> None:
        """Within `changing`: the same for any entry."""
        self._listener.transition(entry)

    def tell_progress(self) -> None:
        """New figures of what runs."""
        for job in list(self.jobs.values()):
            if job.run and job.download.state in (State.RUNNING, State.VERIFYING):
                progress = job.run.progress(self.clock.monotonic())
                if progress != job.told:
                    job.told = progress
                    self._listener.progress(job.download, progress)

    async def database(self, call: Callable[[], T]) -> T:
        """Do it in the thread that talks to the database."""
        return await to_thread.run_sync(call, limiter=self._thread)
