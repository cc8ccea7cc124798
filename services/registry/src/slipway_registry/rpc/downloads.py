"""slipway.registry.v1.DownloadService: each method checks its request, calls the scheduler, converts the answer."""

from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from slipway.common.v1 import watch_pb2
from slipway.registry.v1 import download_pb2, download_service_pb2_grpc
from slipway.registry.v1 import download_service_pb2 as pb
from slipway_service.broadcast import Broadcast
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.pages import fill_page
from slipway_service.paging import PageTokens
from slipway_service.validation import Fields, PageSize
from slipway_service.watch_rpc import add_watch
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import RepoId
from slipway_service.weights.selection import SelectedFiles, Selection, select
from slipway_service.weights.variants import find_variants
from slipway_service.wire import cursor_message

from slipway_registry.hub.credentials import CredentialKind, Credentials
from slipway_registry.hub.repositories import Repositories
from slipway_registry.jobs.records import Download
from slipway_registry.jobs.requests import CreateRequest, recorded
from slipway_registry.jobs.scheduler import Scheduler
from slipway_registry.jobs.store import Store
from slipway_registry.rpc import from_proto, to_proto

SERVICE = pb.DESCRIPTOR.services_by_name["DownloadService"]


class DownloadService(download_service_pb2_grpc.DownloadServiceServicer):
    """Downloads into the shared cache; ended ones are forgotten after `retention` seconds."""

    WatchDownloads: Any  # registered by hand, as `watch_rpc` says why

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        repositories: Repositories,
        credentials: Credentials,
        broadcast: Broadcast,
        *,
        retention: float,
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._repositories = repositories
        self._credentials = credentials
        self._broadcast = broadcast
        self._retention = retention
        self._tokens = PageTokens()

    def offer(self, host: Host) -> None:
        """Serve this on a host."""
        host.offer(SERVICE, download_service_pb2_grpc.add_DownloadServiceServicer_to_server, self)
        add_watch(host.server, SERVICE, "WatchDownloads", self._broadcast, collection="downloads")

    async def CreateDownload(self, request: pb.CreateDownloadRequest, context: Context) -> pb.CreateDownloadResponse:
        with Fields() as fields:
            repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
            selection = fields.parse("selection", from_proto.selection, request.selection)
        credential = from_proto.credential(context, self._credentials)
        tree = await self._repositories.tree(repo, revision, credential)
        # In a thread: a repository of ten thousand files takes a fifth of a second.
        selected = await anyio.to_thread.run_sync(_select, tree.files, selection)
        await self._repositories.check_obtainable(tree, selected.files, credential)
        wanted = CreateRequest(
            repo=tree.requested,
            revision=tree.revision,
            commit=tree.commit,
            listing=tree.files,
            paths=[file.path for file in selected.files],
            selection=recorded(selection, selected),
            credential=credential if credential.kind is CredentialKind.CALLER else None,
        )
        if request.validate_only:
            download = await self._scheduler.preview(wanted)
        else:
            download, _ = await self._scheduler.create(wanted)
        message = to_proto.download(download, retention=self._retention, paths=wanted.paths)
        return pb.CreateDownloadResponse(download=message, cursor=self._cursor())

    async def GetDownload(self, request: pb.GetDownloadRequest, context: Context) -> pb.GetDownloadResponse:
        found = await self._scheduler.get(_name(request))
        cursor = self._cursor()
        return pb.GetDownloadResponse(download=await self._with_paths(found), cursor=cursor)

    async def ListDownloads(self, request: pb.ListDownloadsRequest, context: Context) -> pb.ListDownloadsResponse:
        with Fields() as fields:
            size = fields.parse("page_size", PageSize.parse, request.page_size)
            repo = fields.parse("repo_id", RepoId.parse, request.repo_id) if request.repo_id else None
            states = fields.parse_all("states", from_proto.download_state, request.states)
        after = self._tokens.open(request.page_token, request)
        cursor: watch_pb2.Cursor | None = None
        found: list[download_pb2.Download] = []
        more = True
        # States are filtered here: pages are read until there is one more than was asked for, or nothing left.
        while more and len(found) <= size.items:
            page = await self._scheduler.page(limit=size.items + 1, after=after, repo=repo)
            cursor = cursor or self._cursor()  # of the first: later ones may be ahead of what it showed
            matching = (it for it in page if not states or it.state in states)
            found += [to_proto.download(it, retention=self._retention) for it in matching]
            more = len(page) > size.items
            after = page[-1].id if page else None
        downloads, more = fill_page(found, size)
        token = self._tokens.seal(downloads[-1].uid, request) if more else ""
        return pb.ListDownloadsResponse(downloads=downloads, next_page_token=token, cursor=cursor)

    async def PauseDownload(self, request: pb.PauseDownloadRequest, context: Context) -> pb.PauseDownloadResponse:
        download = await self._scheduler.pause(_name(request), etag=request.etag or None)
        cursor = self._cursor()
        return pb.PauseDownloadResponse(download=await self._with_paths(download), cursor=cursor)

    async def ResumeDownload(self, request: pb.ResumeDownloadRequest, context: Context) -> pb.ResumeDownloadResponse:
        name = _name(request)
        credential = from_proto.credential(context, self._credentials)
        download = await self._scheduler.resume(
            name,
            credential=credential if credential.kind is CredentialKind.CALLER else None,
            etag=request.etag or None,
        )
        cursor = self._cursor()
        return pb.ResumeDownloadResponse(download=await self._with_paths(download), cursor=cursor)

    async def CancelDownload(self, request: pb.CancelDownloadRequest, context: Context) -> pb.CancelDownloadResponse:
        download = await self._scheduler.cancel(
            _name(request), discard_partial=request.discard_partial, etag=request.etag or None
        )
        cursor = self._cursor()
        return pb.CancelDownloadResponse(download=await self._with_paths(download), cursor=cursor)

    async def _with_paths(self, download: Download) -> download_pb2.Download:
        paths, _ = await anyio.to_thread.run_sync(self._store.files, download.id)
        return to_proto.download(download, retention=self._retention, paths=paths)

    def _cursor(self) -> watch_pb2.Cursor:
        """To be taken with what it goes with: nothing may be awaited in between."""
        return cursor_message(self._broadcast.log.cursor)


def _select(files: Sequence[RepoFile], selection: Selection) -> SelectedFiles:
    return select(files, find_variants(files), selection)


_Named = pb.GetDownloadRequest | pb.PauseDownloadRequest | pb.ResumeDownloadRequest | pb.CancelDownloadRequest


def _name(request: _Named) -> str:
    with Fields() as fields:
        name = fields.parse("name", from_proto.DOWNLOAD_NAME, request.name)
    return name.id
