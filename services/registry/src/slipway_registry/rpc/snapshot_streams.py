"""The streams of SnapshotService: long work in a thread, told about while it runs, ended with its call."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread
from slipway.registry.v1 import snapshot_pb2
from slipway.registry.v1 import snapshot_service_pb2 as pb
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import Filter
from slipway_service.fault import Reason
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.validation import Fields
from slipway_service.watch_rpc import add_stream
from slipway_service.watcher import Watch
from slipway_service.weights.names import Revision

from slipway_registry.cache.export import Export
from slipway_registry.cache.hold import Hold, held_files
from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.pin import DEFAULT_TTL
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.roots import allowed, check_outside
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.cache.take_in import Intake, clear_interrupted
from slipway_registry.cache.verify import Finding, FindingKind, Verification
from slipway_registry.hub.credentials import Credential, CredentialKind, Credentials
from slipway_registry.hub.repositories import Repositories
from slipway_registry.jobs.board import in_thread
from slipway_registry.jobs.records import Download, State
from slipway_registry.jobs.requests import CreateRequest
from slipway_registry.jobs.scheduler import Scheduler
from slipway_registry.jobs.store import Store
from slipway_registry.rpc import from_proto
from slipway_registry.rpc import snapshot_messages as messages
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_registry.rpc.snapshots import SERVICE, SNAPSHOT_NAME
from slipway_registry.transfer.budget import DiskBudget
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore

_INTERVAL = 0.25
"""Seconds between two messages of progress: as quick as a person sees it, as for watches."""

_HOLDER = "registry"
"""Who holds a snapshot while it is exported."""

_CLAIM = "export to "
"""How the claims of these holds begin."""


class _Work(Protocol):
    """Blocking work with figures."""

    done_bytes: int
    total_bytes: int

    def run(self, halt: Halt) -> None:
        """Return when it is done."""
        ...


class SnapshotStreams:
    """VerifySnapshot, ExportSnapshot and ImportSnapshot; `export_roots` are the directories that they may touch."""

    def __init__(
        self,
        keeper: Keeper,
        log: SnapshotLog,
        *,
        scheduler: Scheduler,
        downloads: Broadcast,
        store: Store,
        budget: DiskBudget,
        publisher: Publisher,
        repositories: Repositories,
        credentials: Credentials,
        export_roots: list[Path],
    ) -> None:
        self._keeper = keeper
        self._log = log
        self._scheduler = scheduler
        self._downloads = downloads
        self._store = store
        self._budget = budget
        self._publisher = publisher
        self._repositories = repositories
        self._credentials = credentials
        self._roots = export_roots
        self._core = OneCore()

    async def clear_interrupted(self) -> None:
        """End what a killed process left: pins of its exports, files of its imports. For a start, before `offer`."""
        for pin in self._keeper.pins.all():
            if pin.holder == _HOLDER and pin.claim.startswith(_CLAIM):
                await self._keeper.unpin(pin.id)
        repos = await to_thread.run_sync(self._keeper.index.candidates)
        await to_thread.run_sync(clear_interrupted, self._keeper.shelf, repos)

    def offer(self, host: Host) -> None:
        """Serve these beside the other methods, which are offered already."""
        for method in (self.VerifySnapshot, self.ExportSnapshot, self.ImportSnapshot):
            add_stream(host.server, SERVICE, method.__name__, method)

    async def VerifySnapshot(self, request: pb.VerifySnapshotRequest, context: Context) -> None:
        with Fields() as fields:
            name = fields.parse("name", SNAPSHOT_NAME, request.name)
        credential = from_proto.credential(context, self._credentials) if request.repair else None
        snapshot = await self._keeper.get(str(name))
        files = await self._keeper.linked(snapshot, request.variant)
        work = Verification(
            self._keeper.shelf,
            self._store,
            self._keeper.records,
            snapshot.repo,
            snapshot.commit,
            files,
            core=self._core,
            repair=request.repair,
        )
        told = 0

        async def tell() -> None:
            nonlocal told
            found = work.findings[told:]
            told += len(found)
            progress = snapshot_pb2.SnapshotVerification(
                name=snapshot.name,
                uid=snapshot.record.uid,
                done_bytes=work.done_bytes,
                total_bytes=work.total_bytes,
            )
            self._log.verifying(progress)
            await context.write(pb.VerifySnapshotResponse(progress=progress, findings=map(messages.finding, found)))

        await _telling(work, tell)
        await self._keeper.refresh(work.repos, anew=True)
        repaired: list[Finding] = []
        if credential and work.findings:
            repaired = await self._repaired(snapshot, work.findings, credential)
            await self._keeper.refresh([snapshot.repo], anew=True)
        await context.write(
            pb.VerifySnapshotResponse(
                findings=map(messages.finding, repaired),
                open_findings=len(work.findings) - sum(1 for it in repaired if it.kind is FindingKind.REPAIRED),
            )
        )

    async def ExportSnapshot(self, request: pb.ExportSnapshotRequest, context: Context) -> None:
        with Fields() as fields:
            name = fields.parse("name", SNAPSHOT_NAME, request.name)
            selection = fields.parse("selection", from_proto.selection, request.selection)
        directory = allowed(request.directory, self._roots)
        check_outside(directory, self._keeper.shelf.hub)
        snapshot = await self._keeper.get(str(name))
        files = [it.file for it in held_files(snapshot, selection, damaged=Reason.HASH_MISMATCH)]
        # Nothing is deleted while it is copied.
        claim = f"{_CLAIM}{request.directory}"[:200] + f" {time.monotonic_ns()}"
        hold = Hold(
            repo=snapshot.repo,
            revision=Revision(snapshot.commit),
            selection=selection,
            holder=_HOLDER,
            claim=claim,
            ttl=DEFAULT_TTL,
        )
        pin, _, _ = await self._keeper.pin(hold)
        hub = self._keeper.shelf.hub
        work = Export(hub, snapshot.repo, snapshot.commit, files, directory, core=self._core)

        async def tell() -> None:
            await context.write(pb.ExportSnapshotResponse(done_bytes=work.done_bytes, total_bytes=work.total_bytes))

        try:
            await _telling(work, tell)
        finally:
            with anyio.CancelScope(shield=True):
                await self._keeper.unpin(pin.id)
        await context.write(
            pb.ExportSnapshotResponse(done_bytes=work.done_bytes, total_bytes=work.total_bytes, file_count=len(files))
        )

    async def ImportSnapshot(self, request: pb.ImportSnapshotRequest, context: Context) -> None:
        with Fields() as fields:
            repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
        directory = allowed(request.directory, self._roots)
        tree = await self._repositories.tree(repo, revision, from_proto.credential(context, self._credentials))
        work = Intake(
            self._keeper.shelf,
            self._publisher,
            self._store,
            self._budget,
            repo,
            tree.commit,
            revision,
            tree.files,
            directory,
            now=time.time(),
        )

        async def tell() -> None:
            await context.write(pb.ImportSnapshotResponse(done_bytes=work.done_bytes, total_bytes=work.total_bytes))

        with self._keeper.wanted.importing((repo, tree.commit), {file.blob_id for file in tree.files}):
            await _telling(work, tell)
        await self._keeper.used(repo, tree.commit)
        found = await self._keeper.find(repo, Revision(tree.commit))
        await context.write(
            pb.ImportSnapshotResponse(
                done_bytes=work.done_bytes,
                total_bytes=work.total_bytes,
                findings=map(messages.finding, work.findings),
                snapshot=messages.snapshot(found),
            )
        )

    async def _repaired(self, snapshot: Snapshot, findings: list[Finding], credential: Credential) -> list[Finding]:
        """Fetch again what is wrong, and say what came of it.

        Raises:
            Fault: the cache does not know the commit's listing, and the Hub does not tell it.
        """
        listing = snapshot.listing
        if not snapshot.listed:  # what is there is not all there is
            listing = (await self._repositories.tree(snapshot.repo, Revision(snapshot.commit), credential)).files
        wanted = CreateRequest(
            repo=snapshot.repo,
            revision=Revision(snapshot.commit),
            commit=snapshot.commit,
            listing=listing,
            paths=sorted({finding.path for finding in findings}),
            credential=credential if credential.kind is CredentialKind.CALLER else None,
        )
        download, _ = await self._scheduler.create(wanted)
        watch = Watch(wanted=Filter(collection="downloads/", names=frozenset({download.name})), until_done=True)
        subscription = self._downloads.subscribe(watch)
        while await subscription.receive() is not None:
            pass
        ended: Download = await self._scheduler.get(download.id)
        if ended.state is State.SUCCEEDED:
            return [
                Finding(kind=FindingKind.REPAIRED, path=it.path, expected=it.expected, actual=it.expected)
                for it in findings
            ]
        detail = ended.failure.text if ended.failure else f"{ended.name} is {ended.state}"
        return [Finding(kind=it.kind, path=it.path, expected=it.expected, detail=detail) for it in findings]


async def _telling(work: _Work, tell: Callable[[], Awaitable[None]]) -> None:
    """Do the work in a thread, and tell how far it is: now and then, and at its end. Cancelled, it is halted."""
    halt, ended = Halt(), anyio.Event()

    async def talk() -> None:
        while not ended.is_set():
            await tell()
            with anyio.move_on_after(_INTERVAL):
                await ended.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talk)
        try:
            await in_thread(partial(work.run, halt), halt)
        finally:
            ended.set()
    await tell()
