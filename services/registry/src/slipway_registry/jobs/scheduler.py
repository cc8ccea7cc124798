"""What callers may do to downloads.

One event loop owns all of it; blocking work (database, disk, network) is done in threads.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from anyio import CancelScope, to_thread
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, RepoId

from slipway_registry.cache.names import blob_of
from slipway_registry.hub.credentials import Credential
from slipway_registry.jobs import states
from slipway_registry.jobs.attempt import Tools, claims
from slipway_registry.jobs.failures import failure_of
from slipway_registry.jobs.job import Job
from slipway_registry.jobs.ledger import Ledger
from slipway_registry.jobs.queue import Queue, QueueSettings
from slipway_registry.jobs.records import Download, PauseReason, WaitReason
from slipway_registry.jobs.requests import CreateRequest, chosen, complete, new_download
from slipway_registry.jobs.store import Cursor
from slipway_registry.transfer.errors import disk_errors


class Scheduler:
    """Create it, enter `running()`, then call the rest from the same event loop."""

    def __init__(
        self,
        tools: Tools,
        ledger: Ledger,
        *,
        credential: Callable[[], Credential],
        settings: QueueSettings | None = None,
    ) -> None:
        self._tools = tools
        self._ledger = ledger
        self._store = tools.store
        self._clock = ledger.clock
        self._credential = credential
        self._queue = Queue(tools, ledger, settings or QueueSettings(), credential)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Scheduler"]:
        """Take up what an earlier process left, and work until the body ends; then drain."""
        async with self._queue.running():
            yield self

    async def drain(self) -> None:
        """Begin nothing more; interrupt what runs, which the next process takes up again."""
        await self._queue.drain()

    async def preview(self, request: CreateRequest) -> Download:
        """What `create` would answer, or come to at once where the disk is too small, changing nothing.

        Raises:
            Fault: as `create`.
        """
        download = new_download(request, self._clock.now())
        live = (job.download for job in self._ledger.jobs.values() if job.download.key == download.key)
        if found := next(live, None):
            return found
        if not (missing := await to_thread.run_sync(self._missing, request, limiter=self._tools.disk)):
            return complete(download)
        with disk_errors(self._tools.shelf.hub):
            wanted = claims(self._tools.shelf, request.repo, missing)
            shortage = await to_thread.run_sync(self._tools.budget.shortage, wanted, limiter=self._tools.disk)
        if shortage is None:
            return download
        failure = failure_of(shortage.fault())
        event = states.Waits(WaitReason.DISK, failure) if shortage.ever else states.Failed(failure)
        return states.step(download, event, self._clock.now())

    async def create(self, request: CreateRequest) -> tuple[Download, bool]:
        """The live download of that commit and selection, or a new one; and whether it is new.

        Raises:
            Fault: HUB_ANSWER_UNSAFE, SELECTION_EMPTY, DRAINING, DISK_FULL, DISK_FAULT.
        """
        if self._queue.draining:
            raise Fault(Reason.DRAINING, "The registry is shutting down: try again in a moment.", retry_after=1.0)
        download = new_download(request, self._clock.now())
        late = False
        there = await self._is_there(request) and await self._publish(request)
        async with self._ledger.changing():
            asked = complete(download) if there else download
            with CancelScope(shield=True):
                create = partial(self._store.create, asked, request.paths, request.listing)
                download, new = await self._ledger.database(create)
            if new:
                self._ledger.tell(download)
                if not download.state.terminal:
                    self._ledger.jobs[download.id] = Job(download, self._credential_of(request.credential))
            elif job := self._ledger.jobs.get(download.id):
                late = job.publishing  # under the names that were known when that began
                download = await self._join(job, request)
        if late:
            await self._publish(request)
            download = await self.get(download.id)
        self._queue.poke()
        return download, new

    async def pause(self, download_id: str, *, etag: str | None = None) -> Download:
        """Stop at once; what is there stays. A paused one stays as it is.

        Raises:
            Fault: DOWNLOAD_NOT_FOUND, DOWNLOAD_STATE_CONFLICT, ETAG_MISMATCH.
        """
        return await self._by_caller(download_id, states.Paused(), etag)

    async def resume(
        self, download_id: str, *, credential: Credential | None = None, etag: str | None = None
    ) -> Download:
        """Queue a paused download. A live one stays as it is, on the token that it has.

        Raises:
            Fault: CREDENTIAL_REQUIRED if it runs on a caller's token and has none; else as `pause`.
        """
        return await self._by_caller(download_id, states.Resumed(), etag, credential)

    async def cancel(self, download_id: str, *, discard_partial: bool = False, etag: str | None = None) -> Download:
        """End it for good; `discard_partial` deletes what no other live download needs, also of one that was cancelled.

        Raises:
            Fault: as `pause`; DOWNLOAD_STATE_CONFLICT also while it is being published.
        """
        download = await self._by_caller(download_id, states.Cancelled(), etag)
        if discard_partial:
            await self._queue.at_rest(download_id)
            await self._discard(download)
        return download

    async def get(self, download_id: str) -> Download:
        """A download with its figures of this moment.

        Raises:
            Fault: DOWNLOAD_NOT_FOUND.
        """
        if job := self._ledger.jobs.get(download_id):
            return job.current(self._clock.monotonic())
        return await self._ledger.database(lambda: self._store.get(download_id))

    async def page(self, *, limit: int, after: str | None = None, repo: RepoId | None = None) -> list[Download]:
        """Downloads, newest first, behind the one with id `after`, as all of them are at the same moment."""
        async with self._ledger.changing():
            found = await self._ledger.database(lambda: self._store.page(limit=limit, after=after, repo=repo))
        live, now = self._ledger.jobs, self._clock.monotonic()
        return [live[item.id].current(now) if item.id in live else item for item in found]

    async def head(self) -> Cursor:
        """The newest position in the event log."""
        return await self._ledger.database(self._store.head)

    async def _by_caller(
        self, download_id: str, event: states.Event, etag: str | None, credential: Credential | None = None
    ) -> Download:
        """Let the event happen, unless the download is already as the caller wants it."""
        async with self._ledger.changing():
            job = self._ledger.jobs.get(download_id)
            download = job.download if job else await self._ledger.database(lambda: self._store.get(download_id))
            if etag is not None and etag != download.etag:
                raise Fault(Reason.ETAG_MISMATCH, f"{download.name} has changed: it is {download.state} now.")
            if states.is_so(download, event):
                return job.current(self._clock.monotonic()) if job else download
            if job is None:
                raise Fault(Reason.DOWNLOAD_STATE_CONFLICT, f"{download.name} is {download.state} for good.")
            if job.publishing:
                text = f"{download.name} is complete and being published."
                raise Fault(Reason.DOWNLOAD_STATE_CONFLICT, text)
            given = credential if download.callers_credential else None
            if isinstance(event, states.Resumed) and job.lacks_credential and given is None:
                text = (
                    f"{download.name} runs on a caller's token, which was not kept over the registry's restart: "
                    "send it again with ResumeDownload."
                )
                raise Fault(Reason.CREDENTIAL_REQUIRED, text)
            await self._ledger.record(job, event)
            if given is not None:
                job.credential, job.lacks_credential = self._credential_of(given), False
            if job.scope:
                job.scope.cancel()
        self._queue.poke()
        return job.download

    async def _join(self, job: Job, request: CreateRequest) -> Download:
        """Another caller of a live download: it goes on with their credential, and gets their name of the commit too.

        One that the registry's own credential is enough for lives on that from now on.
        """
        before = job.download
        if before.callers_credential:
            job.credential, job.lacks_credential = self._credential_of(request.credential), False
            job.download = replace(job.download, callers_credential=request.credential is not None)
        if request.revision.names_ref(request.commit) and request.revision not in (before.revision, *before.also):
            job.download = replace(job.download, also=(*before.also, request.revision))
        if job.download.pause_reason is PauseReason.CREDENTIAL_REQUIRED:
            await self._ledger.record(job, states.Resumed())
        elif job.download != before:
            changed = job.download
            await self._ledger.database(lambda: self._store.note(changed))
        return job.current(self._clock.monotonic())

    def _credential_of(self, given: Credential | None) -> Callable[[], Credential]:
        return self._credential if given is None else lambda: given

    async def _is_there(self, request: CreateRequest) -> bool:
        """Whether every selected file is in the cache and verified."""
        obtainer, files = self._tools.obtainer, request.files
        return await to_thread.run_sync(
            lambda: all(obtainer.survey(request.repo, file).verified for file in files), limiter=self._tools.disk
        )

    def _missing(self, request: CreateRequest) -> list[RepoFile]:
        """The selected files that are not in the cache and verified. Looks at the disk: for a thread."""
        return [file for file in request.files if not self._tools.obtainer.survey(request.repo, file).verified]

    async def _publish(self, request: CreateRequest) -> bool:
        """Complete links and refs of what is there; False if it was deleted at this very moment."""
        publish = partial(
            self._tools.publisher.publish,
            request.repo,
            request.commit,
            request.listing,
            request.paths,
            request.revision,
        )
        try:
            await to_thread.run_sync(publish, limiter=self._tools.disk)
        except OSError:
            return False
        return True

    async def _discard(self, download: Download) -> None:
        """Delete the partials that only this download needed."""
        blobs = await self._blobs(download.id)
        for other in list(self._ledger.jobs.values()):
            if other.download.repo == download.repo:
                blobs -= await self._blobs(other.download.id)
        for blob in blobs:
            await to_thread.run_sync(self._tools.shelf.discard, download.repo, blob, limiter=self._tools.disk)

    async def _blobs(self, download_id: str) -> set[BlobId]:
        paths, listing = await self._ledger.database(lambda: self._store.files(download_id))
        return {blob_of(file) for file in chosen(listing, paths)}
