"""From what the cache holds to the messages of slipway.registry.v1."""

from collections.abc import Iterable

from slipway.registry.v1 import snapshot_pb2 as pb
from slipway_service.times import duration, timestamp

from slipway_registry.cache.pin import Pin
from slipway_registry.cache.prune import Item
from slipway_registry.cache.snapshot import FileStanding, Snapshot, VariantStanding, snapshot_name
from slipway_registry.cache.usage import RepoUsage, Usage
from slipway_registry.cache.verify import Finding
from slipway_registry.rpc import to_proto


def snapshot(value: Snapshot, *, files: bool = False) -> pb.Snapshot:
    """A commit in the cache; its files only where the contract has them."""
    return pb.Snapshot(
        name=value.name,
        uid=value.record.uid,
        etag=value.etag,
        repo_id=value.repo,
        commit=value.commit,
        refs=value.refs,
        path=value.path,
        files=map(_file, value.files) if files else (),
        variants=map(_variant, value.variants),
        complete=value.complete,
        present_bytes=value.present_bytes,
        exclusive_bytes=value.exclusive_bytes,
        pin_count=value.pin_count,
        create_time=timestamp(value.record.create_time),
        use_time=timestamp(value.record.use_time),
        damaged_count=len(value.damaged),
    )


def pin(value: Pin) -> pb.Pin:
    """A claim on files of a snapshot."""
    return pb.Pin(
        name=value.name,
        holder=value.holder,
        snapshot=value.snapshot,
        repo_id=value.repo,
        commit=value.commit,
        paths=value.paths,
        expire_time=timestamp(value.expire_time),
        create_time=timestamp(value.create_time),
        release_requested=value.release_requested,
        release_refusal=value.refusal,
        claim=value.claim,
    )


def manifest(files: Iterable[FileStanding]) -> list[pb.ManifestEntry]:
    """What the holder of a pin checks its mount against."""
    return [pb.ManifestEntry(path=it.file.path, size_bytes=it.file.size_bytes, blob_id=it.file.blob_id) for it in files]


def prune_item(value: Item) -> pb.PruneItem:
    """Something that a prune takes."""
    return pb.PruneItem(
        snapshot=snapshot_name(value.repo, value.commit) if value.commit else "",
        repo_id=value.repo,
        commit=value.commit or "",
        freed_bytes=value.freed_bytes,
        reason=pb.PruneReason.Value(f"PRUNE_REASON_{value.reason}"),
        idle=duration(value.idle),
    )


def finding(value: Finding) -> pb.Finding:
    """Something wrong with a file."""
    return pb.Finding(
        kind=pb.FindingKind.Value(f"FINDING_KIND_{value.kind}"),
        path=value.path,
        expected_blob_id=value.expected,
        actual_blob_id=value.actual,
        detail=value.detail,
    )


def usage(value: Usage) -> pb.CacheUsage:
    """Where the cache's bytes are."""
    return pb.CacheUsage(
        disk_total_bytes=value.disk_total,
        disk_free_bytes=value.disk_free,
        snapshot_bytes=value.snapshots,
        pinned_bytes=value.pinned,
        partial_bytes=value.partials,
        trash_bytes=value.trash,
        repo_count=value.repo_count,
        snapshot_count=value.snapshot_count,
    )


def repo_usage(value: RepoUsage) -> pb.RepoUsage:
    """What a repository takes of the cache."""
    return pb.RepoUsage(
        repo_id=value.repo,
        snapshot_bytes=value.snapshots,
        exclusive_bytes=value.exclusive,
        pinned_bytes=value.pinned,
        partial_bytes=value.partials,
        snapshot_count=value.snapshot_count,
        pin_count=value.pin_count,
        use_time=timestamp(value.use_time),
    )


def _file(value: FileStanding) -> pb.SnapshotFile:
    return pb.SnapshotFile(
        file=to_proto.repo_file(value.file),
        present=value.present,
        verify_time=timestamp(value.verify_time),
        damaged=value.damaged,
    )


def _variant(value: VariantStanding) -> pb.SnapshotVariant:
    return pb.SnapshotVariant(
        name=value.name,
        complete=value.complete,
        verified=value.verified,
        present_bytes=value.present_bytes,
        size_bytes=value.size_bytes,
    )
