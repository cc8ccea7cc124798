"""Who runs when: the queue of downloads, their caps, and every transition in one order.

One event loop owns the state. Transitions take one lock, are recorded, and only then told to the listener; blocking
work (database, disk, network) is done in threads.
"""

import hashlib
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

import anyio
import structlog
from anyio import CancelScope, CapacityLimiter, Event, Lock, to_thread
from anyio.abc import TaskGroup
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId, Revision

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.names import blob_of, check_tree
from slipway_registry.cache.publish import Publisher
from slipway_registry.hub.credentials import Credential, CredentialKind
from slipway_registry.jobs import states
from slipway_registry.jobs.board import BlobBoard, Waiter
from slipway_registry.jobs.clock import Clock, SystemClock
from slipway_registry.jobs.obtain import Need, Obtainer
from slipway_registry.jobs.records import Download, Failure, Progress, State, WaitReason
from slipway_registry.jobs.retry import RetryPolicy, after_setback
from slipway_registry.jobs.run import BlobRun, Run, at_rest
from slipway_registry.jobs.store import Cursor, Entry, Store
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_registry.transfer.errors import Away, DiskFull, Mismatch, Setback, Vanished
from slipway_registry.transfer.partial import DATA

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """Caps and intervals (seconds)."""

    jobs: int = 4  # downloads that run at once; more would share the same link and finish later, all of them
    files: int = 8  # blobs in work at once, over all downloads
    progress_interval: float = 0.25
    disk_interval: float = 10.0  # how often to look whether there is space now
    checkpoint_interval: float = 60.0
    retention: float = 7 * 86_400.0  # finished downloads are forgotten after this


class Listener(Protocol):
    """Told in the event loop, in revision order; must not block."""

    def transition(self, entry: Entry) -> None:
        """A download changed its state, was created, or was deleted."""
        ...

    def progress(self, download: Download, progress: Progress) -> None:
        """New figures of a running download."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What to download: resolved to a commit, with its whole listing, and the selected paths of it."""

    repo: RepoId
    revision: Revision
    commit: Commit
    listing: Sequence[RepoFile]
    paths: Sequence[str]
    selection: Mapping[str, object] = field(default_factory=dict)  # as the caller said it, for display
    credential: Credential | None = None  # None: the registry's own


@dataclass(slots=True, eq=False)
class _Job:
    """A live download in this process."""

    download: Download
    credential: Callable[[], Credential]
    scope: CancelScope | None = None
    ended: Event | None = None  # of its last or current run
    run: Run | None = None
    publishing: bool = False
    settled: Event = field(default_factory=Event)  # the transition that follows `publishing` is recorded
    away_looks: int = 0
    received_floor: int = 0  # done bytes at the last start: more means progress


class Scheduler:
    """Create it, enter `running()`, then call the rest from the same event loop."""

    def __init__(
        self,
        *,
        store: Store,
        shelf: BlobShelf,
        publisher: Publisher,
        obtainer: Obtainer,
        budget: DiskBudget,
        listener: Listener,
        credential: Callable[[], Credential],
        settings: SchedulerSettings | None = None,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._publisher = publisher
        self._obtainer = obtainer
        self._budget = budget
        self._listener = listener
        self._credential = credential
        self._settings = settings or SchedulerSettings()
        self._policy = policy or RetryPolicy()
        self._clock = clock or SystemClock()
        self._chance = chance
        self._jobs: dict[str, _Job] = {}
        self._lock = Lock()
        self._database = CapacityLimiter(1)
        self._disk = CapacityLimiter(4)
        self._wake = Event()
        self._draining = False
        self._hub_rate_until = 0.0
        self._tasks: TaskGroup
        self._board: BlobBoard

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Scheduler"]:
        """Take up what an earlier process left, and work until the body ends; then drain."""
        await self._take_up()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._board = BlobBoard(self._obtainer, tasks, files=self._settings.files)
            for body in (self._dispatch, self._tell_progress, self._keep_house):
                tasks.start_soon(body)
            try:
                yield self
            finally:
                with CancelScope(shield=True):
                    await self.drain()
                tasks.cancel_scope.cancel()

    async def create(self, request: CreateRequest) -> tuple[Download, bool]:
        """The live download of that commit and selection, or a new one; and whether it is new.

        Raises:
            Fault: HUB_ANSWER_UNSAFE, SELECTION_EMPTY, DRAINING.
        """
        if self._draining:
            raise Fault(Reason.DRAINING, "the registry is shutting down; try again", retry_after=1.0)
        download = _new_download(request, self._clock)
        by_path: dict[str, RepoFile] = {file.path: file for file in request.listing}
        files = [by_path[path] for path in request.paths]
        complete = await self._complete_already(request, files)
        async with self._lock:
            if complete:
                download = _complete(download, files)
            download, new = await self._in_database(
                lambda: self._store.create(download, request.paths, request.listing)
            )
            if new:
                self._tell(download)
                if not complete:
                    self._jobs[download.id] = _Job(download, self._credential_of(request))
            elif request.credential and (job := self._jobs.get(download.id)) and job.download.callers_credential:
                job.credential = self._credential_of(request)  # fresher, and the caller has just shown that it works
        self._poke()
        return download, new

    async def pause(self, download_id: str, *, etag: str | None = None) -> Download:
        """Stop at once; what is there stays.

        Raises:
            Fault: DOWNLOAD_NOT_FOUND, DOWNLOAD_STATE_CONFLICT, ETAG_MISMATCH.
        """
        return await self._by_caller(download_id, states.Paused(), etag)

    async def resume(
        self, download_id: str, *, credential: Credential | None = None, etag: str | None = None
    ) -> Download:
        """Queue a paused download.

        Raises:
            Fault: CREDENTIAL_REQUIRED if it runs on a caller's token and none is given, else as `pause`.
        """
        job = self._jobs.get(download_id)
        if job and job.download.callers_credential and credential is None and job.credential is self._credential:
            raise Fault(Reason.CREDENTIAL_REQUIRED, f"{job.download.name} needs the token it was created with")
        if job and credential:
            job.credential = lambda: credential
        return await self._by_caller(download_id, states.Resumed(), etag)

    async def cancel(self, download_id: str, *, discard_partial: bool = False, etag: str | None = None) -> Download:
        """End it for good; `discard_partial` deletes what no other live download needs.

        Raises:
            Fault: as `pause`; DOWNLOAD_STATE_CONFLICT also while it is being published.
        """
        download = await self._by_caller(download_id, states.Cancelled(), etag)
        if discard_partial:
            await self._discard(download)
        return download

    async def get(self, download_id: str) -> Download:
        """A download with its figures of this moment.

        Raises:
            Fault: DOWNLOAD_NOT_FOUND.
        """
        if job := self._jobs.get(download_id):
            return self._with_progress(job)
        return await self._in_database(lambda: self._store.get(download_id))

    async def page(self, *, limit: int, after: str | None = None, repo: str | None = None) -> list[Download]:
        """Downloads, newest first, behind the one with id `after`."""
        found = await self._in_database(lambda: self._store.page(limit=limit, after=after, repo=repo))
        return [self._with_progress(job) if (job := self._jobs.get(item.id)) else item for item in found]

    async def head(self) -> Cursor:
        """The newest position in the event log."""
        return await self._in_database(self._store.head)

    async def drain(self) -> None:
        """Begin nothing more; interrupt what runs, which the next process takes up again."""
        self._draining = True
        running = [job for job in self._jobs.values() if job.scope]
        for job in running:
            async with self._lock:
                if job.scope and not job.publishing:
                    await self._record(job, states.Interrupted())
                    job.scope.cancel()
        for job in running:
            if job.ended:
                await job.ended.wait()

    def _credential_of(self, request: CreateRequest) -> Callable[[], Credential]:
        given = request.credential
        return self._credential if given is None else lambda: given

    # -- transitions

    async def _by_caller(self, download_id: str, event: states.Event, etag: str | None) -> Download:
        job = self._jobs.get(download_id)
        async with self._lock:
            if job is None or job.download.state.terminal:
                download = await self._in_database(lambda: self._store.get(download_id))
                states.step(download, event, self._clock.now())  # says what is wrong
                raise Fault(Reason.DOWNLOAD_STATE_CONFLICT, f"{download.name} is {download.state}")
            if etag is not None and etag != job.download.etag:
                raise Fault(Reason.ETAG_MISMATCH, f"{job.download.name} has changed: it is {job.download.state} now")
            if job.publishing:
                raise Fault(Reason.DOWNLOAD_STATE_CONFLICT, f"{job.download.name} is complete and being published")
            await self._record(job, event)
            if job.scope:
                job.scope.cancel()
        self._poke()
        return job.download

    async def _advance(self, job: _Job, event: states.Event) -> None:
        """A transition by the run itself; cancelled before it if a caller's came first."""
        async with self._lock:
            await self._record(job, event)

    async def _record(self, job: _Job, event: states.Event) -> None:
        """Under the lock: step, store, tell. Shielded, so that what is stored is also told."""
        changed = states.step(self._with_progress(job), event, self._clock.now())
        if changed.state not in (State.RUNNING, State.VERIFYING):
            changed = replace(changed, progress=at_rest(changed.progress))
        with CancelScope(shield=True):
            job.download = await self._in_database(lambda: self._store.save(changed))
        if changed.state.terminal:
            del self._jobs[changed.id]
            self._budget.release(changed.id)
        self._tell(job.download)

    def _tell(self, download: Download) -> None:
        log.info("download", download=download.id, repo=download.repo, state=download.state.value)
        self._listener.transition(
            Entry(revision=download.log_revision, name=download.name, uid=download.id, download=download)
        )

    def _with_progress(self, job: _Job) -> Download:
        if job.run is None:
            return job.download
        return replace(job.download, progress=job.run.progress(self._clock.monotonic()))

    # -- the queue

    async def _take_up(self) -> None:
        """After a restart: what was running is queued; what lived on a caller's token waits for it."""
        for download in await self._in_database(self._store.live):
            job = self._jobs[download.id] = _Job(download, self._credential)
            if download.callers_credential and download.state is not State.PAUSED:
                await self._record(job, states.CredentialLost())
            elif download.state in (State.RUNNING, State.VERIFYING, State.BACKING_OFF):
                await self._record(job, states.Interrupted())

    async def _dispatch(self) -> None:
        while True:
            self._wake = Event()
            await self._grant()
            await self._wake.wait()

    def _poke(self) -> None:
        self._wake.set()

    async def _grant(self) -> None:
        """Start what may start, oldest first."""
        if self._draining:
            return
        limited = self._hub_rate_until - self._clock.monotonic()
        for job in sorted(self._jobs.values(), key=lambda job: job.download.create_time):
            if job.download.state is not State.QUEUED or job.scope:
                continue
            if limited > 0:
                await self._wait_for(job, WaitReason.HUB_RATE)
            elif sum(1 for other in self._jobs.values() if other.scope) >= self._settings.jobs:
                await self._wait_for(job, WaitReason.SLOT)
            else:
                self._start(job)

    async def _wait_for(self, job: _Job, reason: WaitReason) -> None:
        async with self._lock:
            if job.download.state is State.QUEUED and job.download.waiting_for is not reason:
                await self._record(job, states.Waits(reason))

    def _start(self, job: _Job) -> None:
        before = job.ended
        job.scope, job.ended = CancelScope(), Event()
        self._tasks.start_soon(self._run, job, before)

    async def _later(self, delay: float, act: Callable[[], None]) -> None:
        await self._clock.sleep(delay)
        act()

    # -- one run

    async def _run(self, job: _Job, before: Event | None) -> None:
        assert job.scope
        assert job.ended
        ended = job.ended
        try:
            with job.scope:
                if before:
                    await before.wait()
                await self._attempt(job)
        finally:
            if job.run:
                job.download = replace(job.download, progress=at_rest(job.run.progress(self._clock.monotonic())))
            job.scope, job.run, job.publishing = None, None, False
            ended.set()
            self._poke()

    async def _attempt(self, job: _Job) -> None:
        try:
            paths, listing = await self._in_database(lambda: self._store.files(job.download.id))
            by_path: dict[str, RepoFile] = {file.path: file for file in listing}
            files = [by_path[path] for path in paths]
            while True:
                await self._survey(job, files)
                if not await self._claim_space(job):
                    return
                if job.download.state is State.QUEUED:
                    job.received_floor = job.download.progress.done_bytes
                    await self._advance(job, states.Granted())
                await self._obtain_all(job)
                if await self._publish(job, paths, listing):
                    return
        except Setback as setback:
            await self._set_back(job, setback)
        except DiskFull as full:
            self._budget.release(job.download.id)
            await self._advance(job, states.DiskFilled(Failure(reason=Reason.DISK_FULL, text=str(full))))
            self._tasks.start_soon(self._later, self._settings.disk_interval, self._poke)
        except Fault as fault:
            await self._fail(job, failure_of(fault))
        except Exception:
            log.exception("download broke", download=job.download.id)
            await self._fail(job, Failure(reason=Reason.INTERNAL, text="internal error; the registry's log has it"))

    async def _survey(self, job: _Job, files: Sequence[RepoFile]) -> None:
        def survey() -> Run:
            standings = [self._obtainer.survey(job.download.repo, file) for file in files]
            return Run.begin(files, standings, job.download.progress, first=job.download.attempt == 0)

        job.run = await to_thread.run_sync(survey, limiter=self._disk)

    async def _claim_space(self, job: _Job) -> bool:
        """Whether there is space for all that is missing; if not, the download waits or has failed."""
        assert job.run
        repo = job.download.repo
        wanted = {
            blob.file.blob_id: Claim(blob.file.size_bytes, self._shelf.partial(repo, blob_of(blob.file)) / DATA)
            for blob in job.run.missing
        }
        shortage = await to_thread.run_sync(self._budget.claim, job.download.id, wanted, limiter=self._disk)
        if shortage is None:
            return True
        if job.download.state is not State.QUEUED:  # something was deleted meanwhile, and there is no room to refetch
            raise DiskFull(shortage.fault().text)
        if shortage.ever:
            await self._wait_for(job, WaitReason.DISK)
            self._tasks.start_soon(self._later, self._settings.disk_interval, self._poke)
        else:
            await self._fail(job, failure_of(shortage.fault()))
        return False

    async def _obtain_all(self, job: _Job) -> None:
        """All missing blobs, side by side; the first error ends the others."""
        assert job.run
        errors: list[Exception] = []

        async def obtain(blob: BlobRun) -> None:
            try:
                await self._obtain(job, blob)
            except Exception as error:
                errors.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for blob in job.run.missing:
                tasks.start_soon(obtain, blob)
        if errors:
            raise errors[0]
        if job.download.state is State.RUNNING:
            await self._advance(job, states.Fetched())

    async def _obtain(self, job: _Job, blob: BlobRun) -> None:
        need = Need(repo=job.download.repo, commit=job.download.commit, file=blob.file, credential=job.credential)
        while not blob.verified:
            blob.waiter = Waiter(partial(self._poke_fetched, job))
            try:
                await self._board.ensure(need, blob.waiter)
                blob.verified = True
            except Mismatch as mismatch:
                await self._mismatched(job, blob, mismatch)
            except Vanished:
                await self._lost(job)
            finally:
                blob.known = blob.done
                blob.waiter = None

    def _poke_fetched(self, job: _Job) -> None:
        self._tasks.start_soon(self._check_fetched, job)

    async def _check_fetched(self, job: _Job) -> None:
        async with self._lock:
            if job.run and job.run.fetched and job.download.state is State.RUNNING:
                await self._record(job, states.Fetched())

    async def _mismatched(self, job: _Job, blob: BlobRun, mismatch: Mismatch) -> None:
        blob.mismatches += 1
        assert job.run
        job.run.reset()
        if blob.mismatches > states.MAX_MISMATCHES:
            raise Fault(
                Reason.HASH_MISMATCH,
                f"{mismatch.path} came {blob.mismatches} times with a hash other than the Hub states: not published",
                facts={"path": mismatch.path, "expected": mismatch.expected, "actual": mismatch.actual},
            ) from mismatch
        blob.waiter = None
        blob.known = 0
        await self._advance(job, states.Mismatched())

    async def _lost(self, job: _Job) -> None:
        if job.run:
            job.run.reset()
        if job.download.state is State.VERIFYING:
            await self._advance(job, states.Lost())

    async def _publish(self, job: _Job, paths: Sequence[str], listing: Sequence[RepoFile]) -> bool:
        """Make it visible; False if a blob was deleted meanwhile."""
        async with self._lock:
            job.publishing = True
        download = job.download
        publish = partial(self._publisher.publish, download.repo, download.commit, listing, paths, download.revision)
        with CancelScope(shield=True):
            try:
                await to_thread.run_sync(publish, limiter=self._disk)
            except FileNotFoundError:
                job.publishing = False
                await self._lost(job)
                return False
            await self._advance(job, states.Published())
        return True

    async def _set_back(self, job: _Job, setback: Setback) -> None:
        now = self._clock.now()
        progress = self._with_progress(job).progress
        verdict = after_setback(
            self._policy,
            away=isinstance(setback, Away),
            progressed=progress.done_bytes > job.received_floor,
            tries=job.download.tries,
            away_since=job.download.away_since,
            away_looks=job.away_looks,
            retry_after=setback.retry_after,
            now=now,
            chance=self._chance,
        )
        job.away_looks = job.away_looks + 1 if verdict.away_since else 0
        failure = Failure(reason=setback.reason, text=setback.text)
        if verdict.delay is None:
            await self._fail(job, failure)
            return
        if setback.reason is Reason.HUB_RATE_LIMITED:
            self._hub_rate_until = self._clock.monotonic() + verdict.delay
            self._tasks.start_soon(self._later, verdict.delay, self._poke)
        retry_time = now + timedelta(seconds=verdict.delay)
        await self._advance(job, states.SetBack(failure, retry_time, verdict.tries, verdict.away_since))
        self._tasks.start_soon(self._due, job, job.download.log_revision, verdict.delay)

    async def _due(self, job: _Job, revision: int, delay: float) -> None:
        await self._clock.sleep(delay)
        async with self._lock:
            if job.download.log_revision == revision and not self._draining:
                await self._record(job, states.Due())
        self._poke()

    async def _fail(self, job: _Job, failure: Failure) -> None:
        await self._advance(job, states.Failed(failure))

    # -- the rest

    async def _complete_already(self, request: CreateRequest, files: Sequence[RepoFile]) -> bool:
        """Whether everything is verified and visible; the ref that was asked for is then brought up to date."""

        def check() -> bool:
            if not all(self._obtainer.survey(request.repo, file).verified for file in files):
                return False
            try:
                self._publisher.publish(request.repo, request.commit, request.listing, request.paths, request.revision)
            except FileNotFoundError:
                return False
            return True

        return await to_thread.run_sync(check, limiter=self._disk)

    async def _discard(self, download: Download) -> None:
        """Delete the partials that only this download needed."""
        paths, listing = await self._in_database(lambda: self._store.files(download.id))
        wanted = set(paths)
        blobs = {blob_of(file) for file in listing if file.path in wanted}
        for other in self._jobs.values():
            if other.download.repo == download.repo:
                theirs, listed = await self._in_database(partial(self._store.files, other.download.id))
                needed = set(theirs)
                blobs -= {blob_of(file) for file in listed if file.path in needed}
        for blob in blobs:
            discard = partial(self._shelf.discard, download.repo, blob)
            await to_thread.run_sync(discard, limiter=self._disk)

    async def _tell_progress(self) -> None:
        while True:
            await self._clock.sleep(self._settings.progress_interval)
            for job in list(self._jobs.values()):
                if job.run and job.download.state in (State.RUNNING, State.VERIFYING):
                    self._listener.progress(job.download, job.run.progress(self._clock.monotonic()))

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(self._settings.checkpoint_interval)
            before = self._clock.now().timestamp() - self._settings.retention
            async with self._lock:
                for entry in await self._in_database(partial(self._store.expire, before)):
                    self._listener.transition(entry)
            await self._in_database(self._store.compact)
            await to_thread.run_sync(self._store.checkpoint, limiter=self._disk)

    async def _in_database(self, call: Callable[[], T]) -> T:
        return await to_thread.run_sync(call, limiter=self._database)


def failure_of(fault: Fault) -> Failure:
    """What of a Fault is stored with a download."""
    return Failure(
        reason=fault.reason, text=fault.text, facts=dict(fault.facts), help_url=fault.link.url if fault.link else None
    )


def _new_download(request: CreateRequest, clock: Clock) -> Download:
    check_tree(request.listing)
    by_path: dict[str, RepoFile] = {file.path: file for file in request.listing}
    if not request.paths:
        raise Fault(Reason.SELECTION_EMPTY, f"the selection matches no file of {request.repo} at {request.commit}")
    files = [by_path[path] for path in request.paths]
    key = hashlib.sha256("\0".join([request.repo, request.commit, *sorted(request.paths)]).encode()).hexdigest()
    total = sum({file.blob_id: file.size_bytes for file in files}.values())
    now = clock.now()
    return Download(
        id=uuid.uuid4().hex,
        repo=request.repo,
        revision=request.revision,
        commit=request.commit,
        selection=request.selection,
        key=key,
        state=State.QUEUED,
        waiting_for=WaitReason.SLOT,
        callers_credential=request.credential is not None and request.credential.kind is CredentialKind.CALLER,
        progress=Progress(total_bytes=total, total_files=len(files)),
        create_time=now,
        update_time=now,
    )


def _complete(download: Download, files: Sequence[RepoFile]) -> Download:
    total = download.progress.total_bytes
    progress = Progress(
        done_bytes=total, total_bytes=total, cached_bytes=total, done_files=len(files), total_files=len(files)
    )
    return replace(download, state=State.SUCCEEDED, waiting_for=None, progress=progress, end_time=download.create_time)
