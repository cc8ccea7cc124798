"""Calls of DownloadService: transfers into the shared cache."""

from collections.abc import AsyncIterator, Iterable

from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1.download_pb2 import Download, DownloadProgressUpdate, DownloadState
from slipway.registry.v1.download_service_pb2 import (
    CancelDownloadRequest,
    CancelDownloadResponse,
    CreateDownloadRequest,
    CreateDownloadResponse,
    GetDownloadRequest,
    GetDownloadResponse,
    ListDownloadsRequest,
    ListDownloadsResponse,
    PauseDownloadRequest,
    PauseDownloadResponse,
    ResumeDownloadRequest,
    ResumeDownloadResponse,
    WatchDownloadsRequest,
)
from slipway.registry.v1.download_service_pb2_grpc import DownloadServiceStub
from slipway.registry.v1.selection_pb2 import PatternSelection, Selection

from slipway_client.backoff import Backoff
from slipway_client.client import LIST_PAGE, Client, collect, duration, resource_name, resource_names, versions
from slipway_client.connection import Connection, token_metadata
from slipway_client.error_details import from_status
from slipway_client.errors import Conflict, NotFound
from slipway_client.events import Kind
from slipway_client.watch import OnDisconnect, Watch, ignore_disconnect
from slipway_client.words import value

FINAL_STATES = frozenset(
    {
        DownloadState.DOWNLOAD_STATE_SUCCEEDED,
        DownloadState.DOWNLOAD_STATE_FAILED,
        DownloadState.DOWNLOAD_STATE_CANCELLED,
    }
)


def _with_progress(download: Download, update: DownloadProgressUpdate) -> Download:
    changed = Download()
    changed.CopyFrom(download)
    changed.progress.CopyFrom(update.progress)
    return changed


DOWNLOADS: Kind[Download, DownloadProgressUpdate] = Kind("download", _with_progress)


class DownloadCalls(Client):
    """Downloads: start, watch, pause, resume, cancel. They are named by `downloads/{id}` or by the id alone."""

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        super().__init__(connection, backoff=backoff)
        self._downloads = DownloadServiceStub(connection.channel)

    async def create_download(
        self,
        repo_id: str,
        revision: str = "",
        *,
        selection: Selection | None = None,
        validate_only: bool = False,
        hf_token: str = "",
    ) -> CreateDownloadResponse:
        """Starts a download, or joins the live one for the same commit and selection. See `select`.

        Raises:
            SlipwayError: INVALID_FIELDS, REPO_NOT_FOUND, REVISION_NOT_FOUND, REPO_GATED, REPO_DISABLED,
                VARIANT_NOT_FOUND, SELECTION_EMPTY, DISK_FULL, DISK_FAULT, CREDENTIAL_INVALID,
                SERVICE_CREDENTIAL_INVALID, HUB_UNREACHABLE, HUB_RATE_LIMITED, HUB_ERROR, HUB_ANSWER_UNSAFE, OFFLINE,
                DRAINING.
        """
        request = CreateDownloadRequest(
            repo_id=repo_id, revision=revision, selection=selection, validate_only=validate_only
        )
        return await self._downloads.CreateDownload(request, metadata=token_metadata(hf_token))

    async def start_download(
        self, repo_id: str, revision: str = "", *, selection: Selection | None = None, hf_token: str = ""
    ) -> CreateDownloadResponse | ResumeDownloadResponse:
        """As `create_download`, and one that a caller has paused is resumed.

        Raises:
            SlipwayError: as `create_download` and `resume_download`.
        """
        created = await self.create_download(repo_id, revision, selection=selection, hf_token=hf_token)
        if created.download.state != DownloadState.DOWNLOAD_STATE_PAUSED:
            return created
        return await self.resume_download(created.download.name, hf_token=hf_token)

    async def get_download(self, name: str) -> GetDownloadResponse:
        """Reads a download.

        Raises:
            SlipwayError: INVALID_FIELDS, DOWNLOAD_NOT_FOUND.
        """
        return await self._downloads.GetDownload(GetDownloadRequest(name=resource_name("downloads", name)))

    async def list_downloads(self, *, repo_id: str = "", states: Iterable[str] = ()) -> list[Download]:
        """All downloads, the newest first; `states` are words such as `running`.

        Raises:
            ValueError: a state is no such word.
        """
        wanted = [value(DownloadState, state) for state in states]
        request = ListDownloadsRequest(repo_id=repo_id, states=wanted, page_size=LIST_PAGE)

        async def page(token: str) -> ListDownloadsResponse:
            request.page_token = token
            return await self._downloads.ListDownloads(request)

        return await collect(page, lambda page: page.downloads)

    async def pause_download(self, name: str, *, etag: str = "") -> PauseDownloadResponse:
        """Stops a download and keeps what it has.

        Raises:
            SlipwayError: INVALID_FIELDS, DOWNLOAD_NOT_FOUND, DOWNLOAD_STATE_CONFLICT, ETAG_MISMATCH.
        """
        request = PauseDownloadRequest(name=resource_name("downloads", name), etag=etag)
        return await self._downloads.PauseDownload(request)

    async def resume_download(self, name: str, *, etag: str = "", hf_token: str = "") -> ResumeDownloadResponse:
        """Queues a paused download again.

        Raises:
            SlipwayError: as `pause_download`; CREDENTIAL_INVALID, SERVICE_CREDENTIAL_INVALID; CREDENTIAL_REQUIRED: it
                lives on a caller's token; give `hf_token`.
        """
        request = ResumeDownloadRequest(name=resource_name("downloads", name), etag=etag)
        return await self._downloads.ResumeDownload(request, metadata=token_metadata(hf_token))

    async def cancel_download(
        self, name: str, *, discard_partial: bool = False, etag: str = ""
    ) -> CancelDownloadResponse:
        """Ends a download; `discard_partial` also removes what it had.

        Raises:
            SlipwayError: as `pause_download`.
        """
        request = CancelDownloadRequest(
            name=resource_name("downloads", name), discard_partial=discard_partial, etag=etag
        )
        return await self._downloads.CancelDownload(request)

    def watch_downloads(
        self,
        names: Iterable[str] = (),
        *,
        after: Cursor | None = None,
        known: Iterable[Download] = (),
        until_done: bool = False,
        min_progress_interval: float | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> Watch[Download, DownloadProgressUpdate]:
        """Every transition of these downloads (of all, when none is named) exactly once, and the newest progress.

        Args:
            names: which; empty watches all.
            after: the cursor of an answer, to go on exactly behind it; None begins with the state.
            known: the downloads of that answer, for the watch's mirror.
            until_done: end when all of `names` are in a final state or gone.
            min_progress_interval: shortest seconds between two batches of progress; None is the service's 0.25.
            on_disconnect: told of each lost stream.
        """
        request = WatchDownloadsRequest(
            names=resource_names("downloads", names),
            until_done=until_done,
            min_progress_interval=duration(min_progress_interval),
        )
        return self._watch(
            self._downloads.WatchDownloads,
            request,
            DOWNLOADS,
            after=after,
            known=known,
            until_done=until_done,
            on_disconnect=on_disconnect,
        )

    async def pull(
        self,
        repo_id: str,
        revision: str = "",
        *,
        selection: Selection | None = None,
        hf_token: str = "",
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> AsyncIterator[Download]:
        """Starts, joins or resumes a download and yields it with every change, to the end; the last one has SUCCEEDED.

        Leaving early leaves the download running. One that is paused meanwhile is waited for.

        Raises:
            SlipwayError: as `start_download`, and what the download itself failed of.
        """
        started = await self.start_download(repo_id, revision, selection=selection, hf_token=hf_token)
        async for download in self.follow_download(started.download, started.cursor, on_disconnect=on_disconnect):
            yield download

    async def follow_download(
        self, download: Download, cursor: Cursor, *, on_disconnect: OnDisconnect = ignore_disconnect
    ) -> AsyncIterator[Download]:
        """A download from an answer, and then with every change, to the end; see `pull`."""
        watch = self.watch_downloads(
            [download.name], after=cursor, known=[download], until_done=True, on_disconnect=on_disconnect
        )
        async for download in versions(download, watch, lambda download: download.state in FINAL_STATES):
            yield download
        raise_for_download(download)


def raise_for_download(download: Download) -> None:
    """Raises what a download failed of, unless it has SUCCEEDED."""
    match download.state:
        case DownloadState.DOWNLOAD_STATE_SUCCEEDED:
            return
        case DownloadState.DOWNLOAD_STATE_FAILED:
            raise from_status(download.error)
        case DownloadState.DOWNLOAD_STATE_CANCELLED:
            raise Conflict("DOWNLOAD_CANCELLED", f"{download.name} was cancelled; pull again to go on where it was")
        case _:
            raise NotFound("DOWNLOAD_NOT_FOUND", f"{download.name} was removed before it had ended")


def select(
    *, variant: str = "", include: Iterable[str] = (), exclude: Iterable[str] = (), everything: bool = False
) -> Selection | None:
    """Which files of a repository: one variant, or globs over paths, or everything; None is the default selection.

    Raises:
        ValueError: more than one of the three was given.
    """
    patterns = PatternSelection(include=include, exclude=exclude)
    chosen = [bool(variant), bool(patterns.include or patterns.exclude), everything]
    if sum(chosen) > 1:
        raise ValueError("choose by variant, or by patterns, or everything")
    if variant:
        return Selection(variant=variant)
    if everything:
        return Selection(everything=True)
    return Selection(patterns=patterns) if any(chosen) else None
