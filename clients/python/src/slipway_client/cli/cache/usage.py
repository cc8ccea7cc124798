"""`slipway cache usage`."""

from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from slipway.registry.v1.snapshot_pb2 import CacheUsage, RepoUsage
from slipway.registry.v1.snapshot_service_pb2 import GetCacheUsageResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.output import Output
from slipway_client.cli.session import session

SHARE_WIDTH = 16
"""Columns of the bar that compares repositories."""


def usage(context: typer.Context) -> None:
    """Show where the cache's bytes are, by repository; every file on the disk counts once."""
    current = session(context)

    async def work() -> GetCacheUsageResponse:
        async with current.registry() as registry:
            return await registry.get_cache_usage_by_repo()

    answer = current.run(work)
    if current.as_json:
        current.output.json(answer)
        return
    repos = sorted(answer.repos, key=lambda it: (-it.snapshot_bytes - it.partial_bytes, it.repo_id))
    if repos:
        _repos(current.output, repos, datetime.now(UTC))
        current.output.line()
    _totals(current.output, answer.usage, shared=sum(it.snapshot_bytes for it in repos) - answer.usage.snapshot_bytes)


def _repos(out: Output, repos: Sequence[RepoUsage], now: datetime) -> None:
    largest = max(it.snapshot_bytes + it.partial_bytes for it in repos)
    out.table(
        ("REPOSITORY", "SNAPSHOTS", "SIZE", "FREES", "PINNED", "PARTIAL", "USED", ""),
        (
            (
                it.repo_id,
                str(it.snapshot_count),
                fmt.size(it.snapshot_bytes),
                fmt.size(it.exclusive_bytes),
                fmt.size(it.pinned_bytes) if it.pinned_bytes else "",
                fmt.size(it.partial_bytes) if it.partial_bytes else "",
                shown.ago(it.use_time, now) if it.HasField("use_time") else "",
                shown.share(it.snapshot_bytes + it.partial_bytes, largest, SHARE_WIDTH),
            )
            for it in repos
        ),
        right=("SNAPSHOTS", "SIZE", "FREES", "PINNED", "PARTIAL", "USED"),
        spare=("", "PARTIAL", "SNAPSHOTS"),
    )


def _totals(out: Output, usage: CacheUsage, *, shared: int) -> None:
    repos = "1 repository" if usage.repo_count == 1 else f"{usage.repo_count} repositories"
    models = f"{fmt.plural(usage.snapshot_count, 'snapshot')} of {repos}"
    under_way = f"of downloads; {fmt.size(usage.reserved_bytes)} more are reserved" if usage.reserved_bytes else ""
    rows = [
        ("cache", fmt.size(usage.snapshot_bytes), models, True),
        ("shared", fmt.size(shared), "of it are in several repositories, and counted once here", shared > 0),
        ("pinned", fmt.size(usage.pinned_bytes), "of it", True),
        ("partial", fmt.size(usage.partial_bytes), under_way, bool(usage.partial_bytes or under_way)),
        ("trash", fmt.size(usage.trash_bytes), "kept for readers that have it open", usage.trash_bytes > 0),
        ("quota", fmt.size(usage.quota_bytes), "what `slipway cache prune` keeps to", usage.quota_bytes > 0),
        ("disk", fmt.size(usage.disk_free_bytes), f"free of {fmt.size(usage.disk_total_bytes)}", True),
    ]
    width = max(len(size) for _, size, _, is_told in rows if is_told)
    for name, size, more, is_told in rows:
        if is_told:
            out.line((f"{name:<8}", "bold"), f"{size:>{width}}", (f"  {more}" if more else "", "dim"))
