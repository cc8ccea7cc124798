"""Calls of SnapshotService: what is in the cache."""

from collections.abc import Iterable

from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1.selection_pb2 import Selection
from slipway.registry.v1.snapshot_pb2 import CacheUsage, Pin, Snapshot, SnapshotVerification
from slipway.registry.v1.snapshot_service_pb2 import (
    DeleteSnapshotRequest,
    DeleteSnapshotResponse,
    ExportSnapshotRequest,
    ExportSnapshotResponse,
    GetCacheUsageRequest,
    GetCacheUsageResponse,
    GetSnapshotRequest,
    GetSnapshotResponse,
    ImportSnapshotRequest,
    ImportSnapshotResponse,
    ListPinsRequest,
    ListPinsResponse,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    PinSnapshotRequest,
    PinSnapshotResponse,
    PruneCacheRequest,
    PruneCacheResponse,
    UnpinSnapshotRequest,
    UnpinSnapshotResponse,
    VerifySnapshotRequest,
    VerifySnapshotResponse,
    WatchPinsRequest,
    WatchSnapshotsRequest,
)
from slipway.registry.v1.snapshot_service_pb2_grpc import SnapshotServiceStub

from slipway_client.backoff import Backoff
from slipway_client.client import LIST_PAGE, Client, collect, duration, resource_name, resource_names
from slipway_client.connection import Connection, Stream
from slipway_client.events import Kind
from slipway_client.watch import OnDisconnect, Watch, ignore_disconnect

FORCED_DELETE_DEADLINE = 180.0
"""Seconds that a forced deletion waits for runners to release the snapshot: a drain (30 s) and a stop (30 s) of a model
that is in use, and then some."""

PRUNE_DEADLINE = 600.0
"""Seconds for a prune: thousands of snapshots on a network file system."""

# The snapshot itself does not change while it is verified; what runs through is seen as events only.
SNAPSHOTS: Kind[Snapshot, SnapshotVerification] = Kind("snapshot", lambda snapshot, _: snapshot)
# Pins have no progress; the second type is never seen.
PINS: Kind[Pin, Pin] = Kind("pin", lambda pin, _: pin)


class SnapshotCalls(Client):
    """Snapshots and pins. They are named by `snapshots/{id}` and `pins/{id}` or by the id alone."""

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        super().__init__(connection, backoff=backoff)
        self._snapshots = SnapshotServiceStub(connection.channel)

    async def get_snapshot(self, name: str = "", *, repo_id: str = "", revision: str = "") -> GetSnapshotResponse:
        """A snapshot with its files: by its name, or by repository and a commit or ref that the cache knows.

        Raises:
            SlipwayError: INVALID_FIELDS, SNAPSHOT_NOT_FOUND, DISK_FAULT.
        """
        request = GetSnapshotRequest(
            name=resource_name("snapshots", name) if name else "", repo_id=repo_id, revision=revision
        )
        return await self._snapshots.GetSnapshot(request)

    async def list_snapshots(self, *, repo_id: str = "") -> list[Snapshot]:
        """All snapshots, of one repository or of all, without their files."""
        request = ListSnapshotsRequest(repo_id=repo_id, page_size=LIST_PAGE)

        async def page(token: str) -> ListSnapshotsResponse:
            request.page_token = token
            return await self._snapshots.ListSnapshots(request)

        return await collect(page, lambda page: page.snapshots)

    def watch_snapshots(
        self,
        names: Iterable[str] = (),
        *,
        after: Cursor | None = None,
        until_done: bool = False,
        min_progress_interval: float | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> Watch[Snapshot, SnapshotVerification]:
        """Every change of snapshots; arguments as those of `watch_downloads`. Done is: complete, or gone."""
        request = WatchSnapshotsRequest(
            names=resource_names("snapshots", names),
            until_done=until_done,
            min_progress_interval=duration(min_progress_interval),
        )
        return self._watch(
            self._snapshots.WatchSnapshots,
            request,
            SNAPSHOTS,
            after=after,
            until_done=until_done,
            on_disconnect=on_disconnect,
        )

    def verify_snapshot(
        self, name: str, *, variant: str = "", repair: bool = False, hf_token: str = ""
    ) -> Stream[VerifySnapshotResponse]:
        """Hashes a snapshot's files and streams progress and findings; leaving the stream ends the work.

        Raises:
            SlipwayError: from the stream: INVALID_FIELDS, SNAPSHOT_NOT_FOUND, VARIANT_NOT_FOUND; with `repair` as
                `create_download`.
        """
        request = VerifySnapshotRequest(name=resource_name("snapshots", name), variant=variant, repair=repair)
        return self.connection.stream(self._snapshots.VerifySnapshot, request, hf_token=hf_token)

    async def delete_snapshot(
        self,
        name: str,
        *,
        variant: str = "",
        force: bool = False,
        etag: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> DeleteSnapshotResponse:
        """Removes a snapshot, or one variant of it. `force` asks the holders of pins to release it first.

        `timeout` is how many seconds to wait for holders, less the time to answer in: FORCED_DELETE_DEADLINE when it
        is not given.

        Raises:
            SlipwayError: INVALID_FIELDS, SNAPSHOT_NOT_FOUND, VARIANT_NOT_FOUND, SNAPSHOT_PINNED (`preconditions` are
                the pins, their subjects the holders), SNAPSHOT_BUSY, ETAG_MISMATCH, DISK_FAULT.
        """
        request = DeleteSnapshotRequest(
            name=resource_name("snapshots", name), variant=variant, force=force, etag=etag, validate_only=validate_only
        )
        if force and timeout is None:
            timeout = FORCED_DELETE_DEADLINE
        return await self._snapshots.DeleteSnapshot(request, timeout=timeout)

    async def prune_cache(
        self,
        *,
        quota_bytes: int | None = None,
        unused_for: float | None = None,
        validate_only: bool = False,
        timeout: float | None = PRUNE_DEADLINE,
    ) -> PruneCacheResponse:
        """Removes what was not used for `unused_for` seconds, and until the cache takes `quota_bytes` at most.

        With neither it goes down to the configured quota.

        Raises:
            SlipwayError: INVALID_FIELDS; DISK_FAULT, DEADLINE: what was taken until then is gone.
        """
        request = PruneCacheRequest(
            quota_bytes=quota_bytes, unused_for=duration(unused_for), validate_only=validate_only
        )
        return await self._snapshots.PruneCache(request, timeout=timeout)

    def export_snapshot(
        self, name: str, directory: str, *, selection: Selection | None = None
    ) -> Stream[ExportSnapshotResponse]:
        """Writes a snapshot as real files into a directory on the registry's host, and streams progress.

        Raises:
            SlipwayError: from the stream: INVALID_FIELDS, SNAPSHOT_NOT_FOUND, VARIANT_NOT_FOUND, SELECTION_EMPTY,
                SNAPSHOT_INCOMPLETE, SNAPSHOT_BUSY, HASH_MISMATCH, PATH_NOT_ALLOWED, DISK_FULL, DISK_FAULT.
        """
        request = ExportSnapshotRequest(name=resource_name("snapshots", name), selection=selection, directory=directory)
        return self.connection.stream(self._snapshots.ExportSnapshot, request)

    def import_snapshot(
        self, repo_id: str, directory: str, *, revision: str = "", hf_token: str = ""
    ) -> Stream[ImportSnapshotResponse]:
        """Takes a directory of the registry's host into the cache, each file by its hash, and streams progress.

        Raises:
            SlipwayError: from the stream: PATH_NOT_ALLOWED, HASH_MISMATCH, DISK_FULL, DISK_FAULT, and as `get_repo`.
        """
        request = ImportSnapshotRequest(repo_id=repo_id, revision=revision, directory=directory)
        return self.connection.stream(self._snapshots.ImportSnapshot, request, hf_token=hf_token)

    async def get_cache_usage(self, *, timeout: float | None = None) -> CacheUsage:
        """Where the cache's bytes are."""
        return (await self._snapshots.GetCacheUsage(GetCacheUsageRequest(), timeout=timeout)).usage

    async def get_cache_usage_by_repo(self, *, timeout: float | None = None) -> GetCacheUsageResponse:
        """As `get_cache_usage`, with what each repository takes."""
        return await self._snapshots.GetCacheUsage(GetCacheUsageRequest(by_repo=True), timeout=timeout)

    async def pin_snapshot(
        self,
        repo_id: str,
        revision: str = "",
        *,
        holder: str,
        claim: str = "",
        selection: Selection | None = None,
        ttl: float | None = None,
        keep: bool = False,
        release_refusal: str = "",
    ) -> PinSnapshotResponse:
        """Holds files of a snapshot, or renews the pin that this holder has on it for this claim.

        Args:
            repo_id: of the snapshot.
            revision: a commit or a ref that the cache knows.
            holder: who holds it.
            claim: what the holder needs it for, for example a model's uid.
            selection: which files; None is all that is there. Those of the newest call count.
            ttl: seconds that it holds unless renewed, at most 30 days; None is 24 h.
            keep: holds without an end; excludes `ttl`.
            release_refusal: says no to a release while it is asked for, and why.

        Raises:
            SlipwayError: INVALID_FIELDS, SNAPSHOT_NOT_FOUND, SNAPSHOT_INCOMPLETE, VARIANT_NOT_FOUND, SELECTION_EMPTY,
                SNAPSHOT_BUSY, DISK_FULL, DISK_FAULT.
        """
        request = PinSnapshotRequest(
            repo_id=repo_id,
            revision=revision,
            selection=selection,
            holder=holder,
            claim=claim,
            ttl=duration(ttl),
            keep=keep,
            release_refusal=release_refusal,
        )
        return await self._snapshots.PinSnapshot(request)

    async def unpin_snapshot(self, name: str) -> UnpinSnapshotResponse:
        """Ends a pin.

        Raises:
            SlipwayError: INVALID_FIELDS, PIN_NOT_FOUND.
        """
        return await self._snapshots.UnpinSnapshot(UnpinSnapshotRequest(name=resource_name("pins", name)))

    async def list_pins(self, *, holder: str = "", snapshot: str = "") -> list[Pin]:
        """All pins, of one holder and on one snapshot or of all."""
        name = resource_name("snapshots", snapshot) if snapshot else ""
        request = ListPinsRequest(holder=holder, snapshot=name, page_size=LIST_PAGE)

        async def page(token: str) -> ListPinsResponse:
            request.page_token = token
            return await self._snapshots.ListPins(request)

        return await collect(page, lambda page: page.pins)

    def watch_pins(
        self,
        names: Iterable[str] = (),
        *,
        holder: str = "",
        after: Cursor | None = None,
        on_disconnect: OnDisconnect = ignore_disconnect,
    ) -> Watch[Pin, Pin]:
        """Every change of pins of a holder, or of all; `release_requested` asks to let go."""
        request = WatchPinsRequest(names=resource_names("pins", names), holder=holder)
        return self._watch(self._snapshots.WatchPins, request, PINS, after=after, on_disconnect=on_disconnect)
