"""slipway.registry.v1.SnapshotService: each method checks its request, calls the keeper, converts the answer."""

from typing import Any

import anyio.to_thread
from google.protobuf.duration_pb2 import Duration
from slipway.registry.v1 import snapshot_service_pb2 as pb
from slipway.registry.v1 import snapshot_service_pb2_grpc
from slipway_service.broadcast import Broadcast
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.metrics import WatchMetrics
from slipway_service.pages import fill_page
from slipway_service.paging import PageTokens
from slipway_service.validation import Fields, PageSize, ResourceName, required
from slipway_service.watch_rpc import add_watch
from slipway_service.weights.names import RepoId
from slipway_service.wire import cursor_message

from slipway_registry.cache.hold import Hold
from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.pin import DEFAULT_TTL, MAX_TEXT, MAX_TTL
from slipway_registry.cache.prune import Rules
from slipway_registry.cache.pruner import Pruner
from slipway_registry.cache.remover import Remover
from slipway_registry.cache.usage import read_usage
from slipway_registry.rpc import from_proto
from slipway_registry.rpc import snapshot_messages as messages
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_registry.transfer.budget import DiskBudget

SERVICE = pb.DESCRIPTOR.services_by_name["SnapshotService"]

SNAPSHOT_NAME = ResourceName.of("snapshots")
PIN_NAME = ResourceName.of("pins")

_PATIENCE = 600.0
"""Seconds that a forced deletion waits for holders when its call has no deadline."""

_ANSWER_TIME = 0.1
"""The share of a call's deadline that is left for deleting and answering, at most `_ANSWER_MOST` seconds."""
_ANSWER_MOST = 5.0


class SnapshotService(snapshot_service_pb2_grpc.SnapshotServiceServicer):
    """What is in the cache."""

    WatchSnapshots: Any  # registered by hand, as `watch_rpc` says why
    WatchPins: Any
    VerifySnapshot: Any  # see `snapshot_streams`
    ExportSnapshot: Any
    ImportSnapshot: Any

    def __init__(
        self,
        keeper: Keeper,
        remover: Remover,
        log: SnapshotLog,
        budget: DiskBudget,
        metrics: WatchMetrics,
        cache_id: str,
    ) -> None:
        self._keeper = keeper
        self._remover = remover
        self._pruner = Pruner(keeper, remover)
        self._metrics = metrics
        self._log = log
        self._budget = budget
        self._cache_id = cache_id
        self._tokens = PageTokens()

    def offer(self, host: Host) -> None:
        """Serve this on a host."""
        host.offer(SERVICE, snapshot_service_pb2_grpc.add_SnapshotServiceServicer_to_server, self)
        snapshots = Broadcast(self._log.snapshots, metrics=self._metrics.of("snapshots"))
        pins = Broadcast(self._log.pins, metrics=self._metrics.of("pins"))
        host.on_drain(snapshots.drain)
        host.on_drain(pins.drain)
        add_watch(host.server, SERVICE, "WatchSnapshots", snapshots, collection="snapshots")
        add_watch(host.server, SERVICE, "WatchPins", pins, collection="pins", label=lambda it: it.holder or None)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:
        with Fields() as fields:
            if request.name:
                fields.check("name", not request.repo_id, "excludes repo_id")
                name = fields.parse("name", SNAPSHOT_NAME, request.name)
            else:
                repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
        found = await (self._keeper.get(str(name)) if request.name else self._keeper.find(repo, revision))
        cursor = cursor_message(self._log.snapshots.cursor)
        return pb.GetSnapshotResponse(snapshot=messages.snapshot(found, files=True), cursor=cursor)

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        with Fields() as fields:
            size = fields.parse("page_size", PageSize.parse, request.page_size)
            if request.repo_id:
                fields.parse("repo_id", RepoId.parse, request.repo_id)
        position = self._tokens.open(request.page_token, request)
        repo, _, commit = (position or "").partition("@")
        await self._keeper.settled()
        page, more = fill_page(self._log.listed((repo, commit) if position else None, request.repo_id), size)
        token = self._tokens.seal(f"{page[-1].repo_id}@{page[-1].commit}", request) if more else ""
        cursor = cursor_message(self._log.snapshots.cursor)
        return pb.ListSnapshotsResponse(snapshots=page, next_page_token=token, cursor=cursor)

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:
        with Fields() as fields:
            name = fields.parse("name", SNAPSHOT_NAME, request.name)
        left = context.time_remaining()
        left = _PATIENCE if left is None else min(left, _PATIENCE)
        done = await self._remover.delete(
            str(name),
            variant=request.variant,
            etag=request.etag,
            force=request.force,
            patience=max(0.0, left - min(_ANSWER_MOST, left * _ANSWER_TIME)),
            validate_only=request.validate_only,
        )
        return pb.DeleteSnapshotResponse(
            freed_bytes=done.removal.freed_bytes,
            paths=done.removal.paths,
            released_holders=done.holders,
            cursor=cursor_message(self._log.snapshots.cursor),
            snapshot=str(name),
        )

    async def PruneCache(self, request: pb.PruneCacheRequest, context: Context) -> pb.PruneCacheResponse:
        with Fields() as fields:
            unused_for = fields.parse("unused_for", _seconds, request.unused_for)
        rules = Rules(
            quota=request.quota_bytes if request.HasField("quota_bytes") else None,
            unused_for=unused_for if request.HasField("unused_for") else None,
        )
        if rules == Rules():
            rules = Rules(quota=self._keeper.settings.quota)
        plan = await self._pruner.prune(rules, validate_only=request.validate_only)
        return pb.PruneCacheResponse(
            items=map(messages.prune_item, plan.items),
            freed_bytes=sum(item.freed_bytes for item in plan.items),
            pinned_count=plan.pinned_count,
        )

    async def GetCacheUsage(self, request: pb.GetCacheUsageRequest, context: Context) -> pb.GetCacheUsageResponse:
        await self._keeper.rescan()
        usage = await anyio.to_thread.run_sync(
            read_usage, self._keeper.index, self._keeper.pins, self._keeper.shelf.hub
        )
        message = messages.usage(usage)
        message.cache_id = self._cache_id
        message.reserved_bytes = self._budget.outstanding
        message.quota_bytes = self._keeper.settings.quota or 0
        repos = map(messages.repo_usage, usage.repos) if request.by_repo else ()
        return pb.GetCacheUsageResponse(usage=message, repos=repos)

    async def PinSnapshot(self, request: pb.PinSnapshotRequest, context: Context) -> pb.PinSnapshotResponse:
        with Fields() as fields:
            repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
            selected = request.HasField("selection")
            selection = fields.parse("selection", from_proto.selection, request.selection) if selected else None
            holder = fields.parse("holder", required, request.holder)
            for name in ("holder", "claim"):
                fields.parse(name, from_proto.one_line, getattr(request, name))
            fields.check("holder", len(request.holder) <= MAX_TEXT, f"must be at most {MAX_TEXT} characters")
            fields.check("claim", len(request.claim) <= MAX_TEXT, f"must be at most {MAX_TEXT} characters")
            refusal = request.release_refusal
            fields.check("release_refusal", len(refusal) <= MAX_TEXT, f"must be at most {MAX_TEXT} characters")
            fields.check("ttl", not (request.keep and request.HasField("ttl")), "must be left out with keep")
            ttl = fields.parse("ttl", _ttl, request.ttl) if request.HasField("ttl") else DEFAULT_TTL
        pin, snapshot, files = await self._keeper.pin(
            Hold(
                repo=repo,
                revision=revision,
                selection=selection,
                holder=holder,
                claim=request.claim,
                ttl=None if request.keep else ttl,
                refusal=refusal,
            )
        )
        return pb.PinSnapshotResponse(
            pin=messages.pin(pin),
            cache_id=self._cache_id,
            snapshot_path=snapshot.path,
            manifest=messages.manifest(files),
            cursor=cursor_message(self._log.pins.cursor),
        )

    async def UnpinSnapshot(self, request: pb.UnpinSnapshotRequest, context: Context) -> pb.UnpinSnapshotResponse:
        with Fields() as fields:
            name = fields.parse("name", PIN_NAME, request.name)
        await self._keeper.unpin(name.id)
        return pb.UnpinSnapshotResponse(cursor=cursor_message(self._log.pins.cursor))

    async def ListPins(self, request: pb.ListPinsRequest, context: Context) -> pb.ListPinsResponse:
        with Fields() as fields:
            size = fields.parse("page_size", PageSize.parse, request.page_size)
            if request.snapshot:
                fields.parse("snapshot", SNAPSHOT_NAME, request.snapshot)
        after = self._tokens.open(request.page_token, request) or ""
        pins = sorted(self._keeper.pins.all(), key=lambda it: it.id)
        found = [
            messages.pin(it)
            for it in pins
            if it.id > after and request.holder in ("", it.holder) and request.snapshot in ("", it.snapshot)
        ]
        page, more = fill_page(found, size)
        token = self._tokens.seal(page[-1].name.removeprefix("pins/"), request) if more else ""
        return pb.ListPinsResponse(pins=page, next_page_token=token, cursor=cursor_message(self._log.pins.cursor))


def _seconds(message: Duration) -> float:
    if message.ToNanoseconds() < 0:
        raise ValueError("must not be negative")
    return message.ToNanoseconds() / 1e9


def _ttl(message: Duration) -> float:
    seconds = _seconds(message)
    if not 0 < seconds <= MAX_TTL:
        raise ValueError("must be more than nothing and at most 30 days")
    return seconds
