"""`slipway cache ls` and `pins`."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from rich.text import Text
from slipway.registry.v1.snapshot_pb2 import CacheUsage, Pin, Snapshot, SnapshotVariant

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.naming import label, named
from slipway_client.cli.output import Output
from slipway_client.cli.session import session
from slipway_client.registry import Registry

SortWord = Literal["name", "size", "used"]

_ORDERS: Mapping[str, Callable[[Snapshot], tuple[object, ...]]] = {
    "name": lambda it: (it.repo_id, it.commit),
    "size": lambda it: (-it.present_bytes, it.repo_id, it.commit),
    "used": lambda it: (-it.use_time.seconds, it.repo_id, it.commit),
}


def ls(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Show these closely: REPO or REPO@REVISION.")
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="List the files of each, too.")] = False,
    sort: Annotated[SortWord, typer.Option(help="What comes first: the name, the largest, the last used.")] = "name",
) -> None:
    """List what is in the cache: how much of each model, who holds it, when it was used."""
    current = session(context)
    now = datetime.now(UTC)

    async def work() -> tuple[list[Snapshot], list[Pin], CacheUsage]:
        async with current.registry() as registry:
            found = await named(registry, models) if models else await registry.list_snapshots()
            if files:
                found = [(await registry.get_snapshot(one.name)).snapshot for one in found]
            if current.as_json:
                return found, [], CacheUsage()
            return found, await registry.list_pins(), await registry.get_cache_usage()

    found, pins, usage = current.run(work)
    found.sort(key=_ORDERS[sort])
    held = _by_snapshot(pins)
    if current.as_json:
        for snapshot in found:
            current.output.json(snapshot)
    elif models or files:
        for number, snapshot in enumerate(found):
            if number:
                current.output.line()
            _closely(current.output, snapshot, held.get(snapshot.name, []), now, files=files)
    elif found:
        _table(current.output, found, held, now)
        current.output.line()
        current.output.line((_sum(usage), "dim"))
    else:
        current.output.line("the cache is empty; `slipway pull REPO` fills it")


def pins(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Only on this: REPO or REPO@REVISION.")] = "",
    holder: Annotated[str, typer.Option(help="Only this holder's.")] = "",
) -> None:
    """List who holds what, so that nothing removes it."""
    current = session(context)
    now = datetime.now(UTC)

    async def work() -> list[Pin]:
        async with current.registry() as registry:
            if not model:
                return await registry.list_pins(holder=holder)
            return await pins_on(registry, await named(registry, [model]), holder)

    found = current.run(work)
    if current.as_json:
        for pin in found:
            current.output.json(pin)
    elif found:
        _pins(current.output, found, now)
    else:
        current.output.line("no pins; `slipway cache pin MODEL` makes one")


async def pins_on(registry: Registry, snapshots: Sequence[Snapshot], holder: str = "") -> list[Pin]:
    """The pins on these snapshots, of one holder or of all."""
    found = []
    for snapshot in snapshots:
        found += await registry.list_pins(snapshot=snapshot.name, holder=holder)
    return found


def _by_snapshot(pins: Sequence[Pin]) -> Mapping[str, list[Pin]]:
    found = defaultdict(list)
    for pin in pins:
        found[pin.snapshot].append(pin)
    return found


def _table(out: Output, found: Sequence[Snapshot], held: Mapping[str, list[Pin]], now: datetime) -> None:
    out.table(
        ("REPOSITORY", "REF", "COMMIT", "SIZE", "FREES", "USED", "HELD BY", "HAS"),
        (
            (
                snapshot.repo_id,
                ", ".join(snapshot.refs),
                Text(fmt.commit(snapshot.commit), style="dim"),
                fmt.size(snapshot.present_bytes),
                fmt.size(snapshot.exclusive_bytes),
                shown.ago(snapshot.use_time, now),
                Text(shown.holders(held.get(snapshot.name, ())), style="magenta"),
                shown.contents(snapshot),
            )
            for snapshot in found
        ),
        right=("SIZE", "FREES", "USED"),
        spare=("FREES", "COMMIT", "REF"),
    )


def _sum(usage: CacheUsage) -> str:
    return (
        f"{fmt.size(usage.snapshot_bytes)} on disk in {fmt.plural(usage.snapshot_count, 'snapshot')}, "
        f"{fmt.size(usage.pinned_bytes)} pinned, {fmt.size(usage.disk_free_bytes)} free"
    )


def _closely(out: Output, snapshot: Snapshot, pins: Sequence[Pin], now: datetime, *, files: bool) -> None:
    out.line((label(snapshot), "bold"), f"  {', '.join(snapshot.refs)}" if snapshot.refs else "")
    facts = (
        fmt.size(snapshot.present_bytes),
        f"frees {fmt.size(snapshot.exclusive_bytes)}",
        f"used {shown.ago(snapshot.use_time, now)}",
    )
    out.line("  " + " · ".join(facts))
    out.line((f"  {snapshot.path}", "dim"))
    if snapshot.variants:
        out.line()
        out.table(
            ("VARIANT", "HERE", "OF", ""), (_variant(variant) for variant in snapshot.variants), right=("HERE", "OF")
        )
    if files:
        out.line()
        present = sum(1 for file in snapshot.files if file.present)
        out.table(
            (f"FILE ({present} of {len(snapshot.files)} here)", "SIZE", ""),
            ((it.file.path, fmt.size(it.file.size_bytes), shown.standing(it)) for it in snapshot.files),
            right=("SIZE",),
        )
    if pins:
        out.line()
        _pins(out, pins, now)


def _variant(variant: SnapshotVariant) -> tuple[str | Text, ...]:
    if variant.verified:
        state = Text("complete, verified", style="green")
    elif variant.complete:
        state = Text("complete, not verified yet")
    else:
        state = Text(
            "in part" if variant.present_bytes else "not here", style="yellow" if variant.present_bytes else "dim"
        )
    return variant.name, fmt.size(variant.present_bytes), fmt.size(variant.size_bytes), state


def _pins(out: Output, pins: Sequence[Pin], now: datetime) -> None:
    out.table(
        ("PIN", "HOLDER", "FOR", "HOLDS", "OF", "ENDS", ""),
        (
            (
                Text(shown.pin_id(pin), style="dim"),
                Text(pin.holder, style="magenta"),
                pin.claim,
                shown.covers(pin),
                f"{pin.repo_id}@{fmt.commit(pin.commit)}",
                shown.until(pin, now),
                Text("asked to let go" if pin.release_requested else "", style="yellow"),
            )
            for pin in pins
        ),
        spare=("", "HOLDS", "FOR"),
    )
