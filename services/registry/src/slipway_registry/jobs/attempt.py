"""One run of one download: look, claim space, obtain, publish; and what to do when that fails."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import anyio
import structlog
from anyio import CancelScope, CapacityLimiter, to_thread
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import RepoId

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.publish import Publisher
from slipway_registry.jobs import states
from slipway_registry.jobs.board import BlobBoard, Waiter
from slipway_registry.jobs.failures import failure_of, full_disk
from slipway_registry.jobs.job import Job
from slipway_registry.jobs.ledger import Ledger
from slipway_registry.jobs.obtain import Need, Obtainer
from slipway_registry.jobs.records import Failure, State, WaitReason
from slipway_registry.jobs.requests import chosen
from slipway_registry.jobs.retry import RetryPolicy, after_setback
from slipway_registry.jobs.run import BlobRun, Run
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_registry.transfer.errors import Away, DiskFull, Mismatch, Setback, Vanished, disk_errors
from slipway_registry.transfer.partial import DATA

log = structlog.get_logger(__name__)

# What other programs delete is fetched again this often in one run; more is not an accident.
_MAX_LOSSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every attempt works with."""

    store: Store
    shelf: BlobShelf
    publisher: Publisher
    obtainer: Obtainer
    budget: DiskBudget
    policy: RetryPolicy
    chance: Callable[[], float] = random.random
    disk: CapacityLimiter  # threads that look at and publish to the cache


class Attempt:
    """Runs a job from QUEUED to wherever it gets.

    Args:
        hold: called with seconds when the Hub limits our rate: nobody should ask it before.
        wait_for_disk: called when there is no space now.
        retry: called with the verdict on the job, now BACKING_OFF: when it is due, and whether it has failed then.
    """

    def __init__(
        self,
        job: Job,
        tools: Tools,
        ledger: Ledger,
        board: BlobBoard,
        *,
        hold: Callable[[float], None],
        wait_for_disk: Callable[[], None],
        retry: Callable[[Job, float, bool], None],
    ) -> None:
        self._job = job
        self._tools = tools
        self._ledger = ledger
        self._board = board
        self._hold = hold
        self._wait_for_disk = wait_for_disk
        self._retry = retry

    async def run(self) -> None:
        """Return when the job has left RUNNING and VERIFYING, or never got there."""
        job = self._job
        try:
            await self._work()
        except Setback as setback:
            await self._set_back(setback)
        except DiskFull as full:
            job.disk_fills = 0 if self._progressed() else job.disk_fills + 1
            self._wait_for_disk()
            await self._ledger.advance(job, states.DiskFilled(full_disk(full)))
        except Fault as fault:
            await self._fail(failure_of(fault))
        except Exception:
            log.exception("a download broke", id=job.download.id)
            await self._fail(Failure(reason=Reason.INTERNAL, text="Internal error; the registry's log tells more."))

    async def _work(self) -> None:
        job = self._job
        paths, listing = await self._ledger.database(lambda: self._tools.store.files(job.download.id))
        files = chosen(listing, paths)
        for _ in range(_MAX_LOSSES):
            run = await self._survey(files)
            if not await self._claim_space(run):
                return
            if job.download.state is State.QUEUED:
                job.start_bytes = job.current(self._ledger.clock.monotonic()).progress.done_bytes
                await self._ledger.advance(job, states.Granted())
            await self._obtain_all(run)
            if await self._publish(paths, listing):
                return
        raise Setback("another program keeps deleting what has been fetched")

    async def _survey(self, files: Sequence[RepoFile]) -> Run:
        download, obtainer, earlier = self._job.download, self._tools.obtainer, self._job.run

        def survey() -> Run:
            standings = [obtainer.survey(download.repo, file) for file in files]
            return Run.begin(
                files,
                standings,
                download.progress,
                first=download.attempt == 0,
                resumed_at_most=earlier.resumed if earlier else None,
            )

        with disk_errors(self._tools.shelf.hub):
            self._job.run = run = await to_thread.run_sync(survey, limiter=self._tools.disk)
        return run

    async def _claim_space(self, run: Run) -> bool:
        """Whether there is space for all that is missing; if not, the download waits or has failed."""
        job, tools = self._job, self._tools
        wanted = claims(tools.shelf, job.download.repo, (blob.file for blob in run.missing))
        with disk_errors(tools.shelf.hub):
            shortage = await to_thread.run_sync(tools.budget.claim, job.download.id, wanted, limiter=tools.disk)
        if shortage is None:
            return True
        if job.download.state is not State.QUEUED:  # files were deleted under us, and somebody took their space
            raise DiskFull(shortage.fault().text) from shortage.fault()
        if shortage.ever:
            job.disk_fills = 0  # the file system tells: looking is cheap
            self._wait_for_disk()
            await wait_for(self._ledger, job, WaitReason.DISK, failure_of(shortage.fault()))
        else:
            await self._fail(failure_of(shortage.fault()))
        return False

    async def _obtain_all(self, run: Run) -> None:
        await all_or_first_error([partial(self._obtain, run, blob) for blob in run.missing])
        await self._all_fetched()

    async def _obtain(self, run: Run, blob: BlobRun) -> None:
        """One blob, again while its bytes turn out to be wrong or are deleted."""
        download = self._job.download
        while not blob.verified:
            need = Need(
                repo=download.repo,
                commit=download.commit,
                file=blob.file,
                credential=self._job.credential,
                mismatches=blob.mismatches,
            )
            blob.waiter = Waiter(self._when_fetched)
            try:
                await self._board.ensure(need, blob.waiter)
                blob.verified = True
            except Mismatch as mismatch:
                blob.give_up()
                run.reset()
                await self._mismatched(blob, mismatch)
            except Vanished:
                blob.give_up()
                run.reset()
                if blob.losses > _MAX_LOSSES:
                    raise Setback("another program keeps deleting what is being fetched") from None
                await self._ledger.advance(self._job, states.Lost(), only_from={State.VERIFYING})
            finally:
                blob.rest()

    def _when_fetched(self) -> None:
        self._board.tasks.start_soon(self._all_fetched)

    async def _all_fetched(self) -> None:
        async with self._ledger.changing():
            job = self._job
            ready = job.run and job.run.fetched and job.download.state is State.RUNNING
        if ready:
            await self._ledger.advance(job, states.Fetched(), only_from={State.RUNNING})

    async def _mismatched(self, blob: BlobRun, mismatch: Mismatch) -> None:
        blob.mismatches += 1
        if blob.mismatches > states.MAX_MISMATCHES:
            raise Fault(
                Reason.HASH_MISMATCH,
                f"{mismatch.path} came {blob.mismatches} times with another hash than the Hub states. "
                "Nothing of it was published.",
                facts={"path": mismatch.path, "expected": mismatch.expected, "actual": mismatch.actual},
            ) from mismatch
        await self._ledger.advance(self._job, states.Mismatched())

    async def _publish(self, paths: Sequence[str], listing: Sequence[RepoFile]) -> bool:
        """Make it visible; False if a blob was deleted meanwhile."""
        job = self._job
        async with self._ledger.changing():
            job.publishing = True  # from here on nobody can cancel it
            download = job.download
        names = (download.revision, *download.also)
        publish = partial(self._tools.publisher.publish, download.repo, download.commit, listing, paths, *names)
        with CancelScope(shield=True):
            try:
                with disk_errors(self._tools.shelf.hub):
                    await to_thread.run_sync(publish, limiter=self._tools.disk)
            except (DiskFull, Fault) as error:
                job.publishing = False
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                await self._ledger.advance(job, states.Lost())
                return False
            await self._ledger.advance(job, states.Published())
        return True

    async def _set_back(self, setback: Setback) -> None:
        job, ledger = self._job, self._ledger
        await ledger.advance(job, states.Lost(), only_from={State.VERIFYING})
        now, away = ledger.clock.now(), isinstance(setback, Away)
        away_since = self._note_absence() if away else None
        verdict = after_setback(
            self._tools.policy,
            away=away,
            progressed=self._progressed(),
            tries=job.download.tries,
            away_for=ledger.clock.monotonic() - (job.away_from or 0.0),
            away_looks=job.away_looks,
            retry_after=setback.retry_after,
            chance=self._tools.chance,
        )
        failure = Failure(reason=setback.reason, text=setback.text, retry_after=verdict.delay)
        if verdict.delay is None:
            await self._fail(failure)
            return
        if away:
            job.away_looks += 1
        else:
            job.away_from, job.away_looks = None, 0
        if setback.reason is Reason.HUB_RATE_LIMITED:
            self._hold(verdict.delay)
        retry_time = now + timedelta(seconds=verdict.delay)
        await ledger.advance(job, states.SetBack(failure, retry_time, verdict.tries, away_since))
        self._retry(job, verdict.delay, verdict.last)

    def _note_absence(self) -> datetime:
        """The Hub is away: since when, as far as this process and the record know."""
        job, clock = self._job, self._ledger.clock
        if job.away_from is None or self._progressed():
            job.away_from, job.away_looks = clock.monotonic(), 0
        return clock.now() if self._progressed() else job.download.away_since or clock.now()

    def _progressed(self) -> bool:
        """Whether bytes have come since the last start."""
        return self._job.current(self._ledger.clock.monotonic()).progress.done_bytes > self._job.start_bytes

    async def _fail(self, failure: Failure) -> None:
        await self._ledger.advance(self._job, states.Failed(failure))


def claims(shelf: BlobShelf, repo: RepoId, files: Iterable[RepoFile]) -> dict[str, Claim]:
    """The space that files of a repository take which it lacks."""
    return {file.blob_id: Claim(file.size_bytes, shelf.partial(repo, blob_of(file)) / DATA) for file in files}


async def wait_for(ledger: Ledger, job: Job, reason: WaitReason, failure: Failure | None = None) -> None:
    """Say what a queued job waits for, if that is news; `failure` says what of it is missing."""
    async with ledger.changing():
        if job.download.state is State.QUEUED and job.download.waiting_for is not reason:
            await ledger.record(job, states.Waits(reason, failure))


async def all_or_first_error(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Await all at once; the first error ends the others and is raised as it is."""
    errors: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def guarded(call: Callable[[], Awaitable[None]]) -> None:
            try:
                await call()
            except Exception as error:  # raised below
                errors.append(error)
                tasks.cancel_scope.cancel()

        for call in calls:
            tasks.start_soon(guarded, call)
    if errors:
        raise errors[0]
