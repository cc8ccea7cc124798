"""`slipway cache prune`."""

from typing import Annotated

import typer
from rich.text import Text
from slipway.registry.v1.snapshot_pb2 import CacheUsage, PruneItem
from slipway.registry.v1.snapshot_service_pb2 import PruneCacheResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.quantities import parse_duration, parse_size
from slipway_client.cli.session import goes_on, session, usage


def prune(
    context: typer.Context,
    quota: Annotated[
        str, typer.Option(metavar="SIZE", help="Until the cache takes at most so much: 500GB. [the registry's own]")
    ] = "",
    unused_for: Annotated[
        str, typer.Option(metavar="DURATION", help="What was not used for so long: 30d.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and why; remove nothing.")] = False,
) -> None:
    """Remove what was not used for long, the least recently used first; never what somebody holds."""
    current = session(context)
    quota_bytes = usage(lambda: parse_size(quota)) if quota else None
    age = usage(lambda: parse_duration(unused_for)) if unused_for else None

    async def work() -> tuple[PruneCacheResponse, CacheUsage]:
        async with current.registry() as registry:
            with goes_on("what it had removed until then is gone; `slipway cache ls` shows what is there"):
                answer = await registry.prune_cache(quota_bytes=quota_bytes, unused_for=age, validate_only=dry_run)
            return answer, await registry.get_cache_usage()

    answer, now = current.run(work)
    if current.as_json:
        current.output.json(answer)
        return
    if answer.items:
        current.output.table(
            ("WOULD GO" if dry_run else "GONE", "COMMIT", "FREES", "WHY"),
            (_item(item) for item in answer.items),
            right=("FREES",),
        )
        current.output.line()
    has_rule = bool(quota or unused_for or now.quota_bytes)
    current.output.line(*_pruned(answer, dry_run=dry_run, has_rule=has_rule))


def _item(item: PruneItem) -> tuple[str | Text, ...]:
    commit = Text(fmt.commit(item.commit) if item.commit else "partial", style="dim")
    return item.repo_id, commit, fmt.size(item.freed_bytes), shown.why(item)


def _pruned(answer: PruneCacheResponse, *, dry_run: bool, has_rule: bool) -> tuple[str | tuple[str, str], ...]:
    held = answer.pinned_count
    who = "1 snapshot stays because it is" if held == 1 else f"{held} snapshots stay because they are"
    stays = f"; {who} held or being downloaded" if held else ""
    if answer.items:
        did = "would free" if dry_run else "freed"
        return (("" if dry_run else "✓ ", "green"), f"{did} {fmt.size(answer.freed_bytes)}{stays}")
    if not has_rule:
        return ("nothing to prune: the registry has no quota; say --quota SIZE or --unused-for DURATION",)
    return (f"nothing to prune{stays}",)
