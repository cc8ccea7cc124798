"""Who runs when: live downloads wait here for a slot, and what runs is started, timed and drained."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import structlog
from anyio import CancelScope, Event, to_thread
from anyio.abc import TaskGroup
from slipway_service.fault import Fault

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import DEFAULT_RETRY_AFTER
from slipway_registry.jobs import states
from slipway_registry.jobs.attempt import Attempt, Tools, wait_for
from slipway_registry.jobs.board import BlobBoard
from slipway_registry.jobs.job import Job
from slipway_registry.jobs.ledger import Ledger
from slipway_registry.jobs.records import State, WaitReason

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Caps and intervals (seconds)."""

    jobs: int = 4  # downloads that run at once; more would share the same link and all finish later
    files: int = 8  # blobs in work at once, over all downloads
    progress_interval: float = 0.25
    disk_interval: float = 10.0  # how often to look whether there is space now
    disk_patience: float = 320.0  # the same, at most, where only writing tells (a quota): each look costs requests
    housekeeping_interval: float = 60.0
    retention: float = 7 * 86_400.0  # finished downloads are forgotten after this


class Queue:
    """Belongs to one event loop. `credential` is the registry's own."""

    def __init__(
        self, tools: Tools, ledger: Ledger, settings: QueueSettings, credential: Callable[[], Credential]
    ) -> None:
        self._tools = tools
        self._ledger = ledger
        self._clock = ledger.clock
        self._settings = settings
        self._credential = credential
        self._wake = Event()
        self._held_until = 0.0  # monotonic: the Hub limits our rate
        # At work, by download, also of one that has ended meanwhile; set at the end.
        self._runs: dict[str, Event] = {}
        self._tasks: TaskGroup
        self._board: BlobBoard
        self.draining = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take up what an earlier process left, and work until the body ends; then drain."""
        await self._take_up()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._board = BlobBoard(self._tools.obtainer, tasks, files=self._settings.files)
            for body in (self._dispatch, self._tell_progress, self._keep_house):
                tasks.start_soon(body)
            try:
                yield
            finally:
                with CancelScope(shield=True):
                    await self.drain()
                tasks.cancel_scope.cancel()

    def poke(self) -> None:
        """Something has changed: look who may run."""
        self._wake.set()

    async def at_rest(self, download_id: str) -> None:
        """Return when no run of that download is at work."""
        if ended := self._runs.get(download_id):
            await ended.wait()

    async def drain(self) -> None:
        """Begin nothing more; interrupt what runs, which the next process takes up again."""
        self.draining = True
        running = [job for job in self._ledger.jobs.values() if job.scope]
        for job in running:
            async with self._ledger.changing():
                if job.scope and not job.publishing:
                    if job.download.state in (State.RUNNING, State.VERIFYING):
                        with contextlib.suppress(Fault):  # where it cannot be recorded, the next process sees it anyway
                            await self._ledger.record(job, states.Interrupted())
                    job.scope.cancel()
        for job in running:
            await self.at_rest(job.download.id)

    async def _take_up(self) -> None:
        """After a restart: what was running is queued; what lived on a caller's token waits for it."""
        for download in await self._ledger.database(self._tools.store.live):
            lacks = download.callers_credential
            job = self._ledger.jobs[download.id] = Job(download, self._credential, lacks_credential=lacks)
            if lacks and download.state is not State.PAUSED:
                await self._ledger.record(job, states.CredentialLost())
            elif download.state in (State.RUNNING, State.VERIFYING, State.BACKING_OFF):
                await self._ledger.record(job, states.Interrupted())

    async def _dispatch(self) -> None:
        while True:
            self._wake = Event()
            await self._grant()
            await self._wake.wait()

    async def _grant(self) -> None:
        """Start what may start, oldest first; tell the others what they wait for."""
        for job in sorted(self._ledger.jobs.values(), key=lambda job: job.download.create_time):
            if self.draining:
                return
            if job.download.state is not State.QUEUED or job.scope:
                continue
            if job.download.waiting_for is WaitReason.DISK and self._clock.monotonic() < job.disk_look_at:
                continue
            if self._clock.monotonic() < self._held_until:
                await wait_for(self._ledger, job, WaitReason.HUB_RATE)
            elif sum(1 for other in self._ledger.jobs.values() if other.scope) >= self._settings.jobs:
                await wait_for(self._ledger, job, WaitReason.SLOT)
            else:
                job.begin()
                self._runs[job.download.id] = Event()
                self._tasks.start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        assert job.scope
        attempt = Attempt(
            job,
            self._tools,
            self._ledger,
            self._board,
            hold=self._hold,
            wait_for_disk=lambda: self._look_for_space_later(job),
            retry=self._retry,
        )
        try:
            with job.scope:
                await attempt.run()
        except Exception:  # a defect of ours must not take the other downloads with it
            log.exception("a download was left behind", id=job.download.id)
        finally:
            job.end(self._clock.monotonic())
            self._runs.pop(job.download.id).set()
            self._tools.budget.release(job.download.id)
            self.poke()

    def _look_for_space_later(self, job: Job) -> None:
        settings = self._settings
        delay = min(settings.disk_interval * 2.0 ** min(job.disk_fills, 16), settings.disk_patience)
        job.disk_look_at = self._clock.monotonic() + delay
        self._later(delay, self.poke)

    def _hold(self, seconds: float) -> None:
        self._held_until = max(self._held_until, self._clock.monotonic() + seconds)
        self._later(seconds, self.poke)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._clock.sleep(seconds)
            act()

        self._tasks.start_soon(wait)

    def _retry(self, job: Job, delay: float, last: bool) -> None:
        self._tasks.start_soon(self._due, job, job.download.log_revision, delay, last)

    async def _due(self, job: Job, revision: int, delay: float, last: bool) -> None:
        await self._clock.sleep(delay)
        async with self._ledger.changing():
            download = job.download
            if download.log_revision != revision or self.draining:
                return
        event: states.Event = states.Due()
        if last and download.failure:
            event = states.Failed(replace(download.failure, retry_after=DEFAULT_RETRY_AFTER))
        await self._ledger.advance(job, event, only_from={State.BACKING_OFF})
        self.poke()

    async def _tell_progress(self) -> None:
        while True:
            await self._clock.sleep(self._settings.progress_interval)
            self._ledger.tell_progress()

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(self._settings.housekeeping_interval)
            try:
                async with self._ledger.changing():
                    await self._expire()
                await to_thread.run_sync(self._tools.store.checkpoint, limiter=self._tools.disk)
            except Fault as fault:
                log.warning("the database cannot be written", error=fault.text)

    async def _expire(self) -> None:
        store = self._tools.store
        before = self._clock.now().timestamp() - self._settings.retention
        with CancelScope(shield=True):
            for entry in await self._ledger.database(lambda: store.expire(before)):
                self._ledger.tell_entry(entry)
            await self._ledger.database(store.compact)
