"""`slipway cache rm` and `slipway uninstall`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from slipway.registry.v1.snapshot_pb2 import Snapshot
from slipway.registry.v1.snapshot_service_pb2 import DeleteSnapshotResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.look import pins_on
from slipway_client.cli.cache.naming import label, named
from slipway_client.cli.display import display
from slipway_client.cli.quantities import parse_duration
from slipway_client.cli.session import Session, goes_on, session, usage
from slipway_client.cli.steps import Step
from slipway_client.errors import Conflict, NotFound
from slipway_client.registry import Registry

Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="REPO for all of its snapshots, or REPO@REVISION.")]
Timeout = Annotated[
    str, typer.Option(metavar="DURATION", help="How long to wait for those who hold it: 30s, 5m; 3m unless said.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How to remove: `timeout` in seconds, None for the client's own; `command` is what a person would type again."""

    command: str
    variant: str = ""
    force: bool = False
    timeout: float | None = None


def rm(
    context: typer.Context,
    models: Models,
    variant: Annotated[str, typer.Option(help="Only the files that this variant alone needs.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Ask those who hold it to let go, and wait for them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    timeout: Timeout = "",
) -> None:
    """Remove models from the cache. What another snapshot needs stays, and so does what somebody holds."""
    current = session(context)
    seconds = usage(lambda: parse_duration(timeout)) if timeout else None
    command = " ".join(["slipway cache rm", *models, *(["--variant", variant] if variant else [])])
    removal = Removal(command=command, variant=variant, force=force, timeout=seconds)

    async def work() -> None:
        async with current.registry() as registry:
            snapshots = _with_variant(await named(registry, models), variant)
            planned = [await _planned(registry, snapshot, removal) for snapshot in snapshots]
            if dry_run:
                _tell_plan(current, snapshots, planned)
            else:
                await _remove(current, registry, snapshots, removal)

    current.run(work)


def uninstall(context: typer.Context, models: Models, timeout: Timeout = "") -> None:
    """Unload models everywhere and delete them from the cache, in one go."""
    current = session(context)
    seconds = usage(lambda: parse_duration(timeout)) if timeout else None
    removal = Removal(command=f"slipway uninstall {' '.join(models)}", force=True, timeout=seconds)

    async def work() -> None:
        async with current.registry() as registry:
            snapshots = await named(registry, models)
            for snapshot in snapshots:
                await _planned(registry, snapshot, removal)
            await _remove(current, registry, snapshots, removal)

    current.run(work)


def _with_variant(snapshots: Sequence[Snapshot], variant: str) -> Sequence[Snapshot]:
    """Of several snapshots those that know a variant; of one, the registry says what is wrong."""
    if not variant or len(snapshots) == 1:
        return snapshots
    found = [it for it in snapshots if variant.lower() in {one.name.lower() for one in it.variants}]
    if not found:
        there = sorted({one.name for it in snapshots for one in it.variants})
        raise NotFound("VARIANT_NOT_FOUND", f"none of these has a variant {variant!r}; there are {', '.join(there)}")
    return found


async def _planned(registry: Registry, snapshot: Snapshot, removal: Removal) -> DeleteSnapshotResponse:
    """What would go; asked of all before any is removed."""
    try:
        return await registry.delete_snapshot(
            snapshot.name, variant=removal.variant, force=removal.force, validate_only=True
        )
    except Conflict as error:
        raise await _explained(registry, snapshot, removal, error) from error


async def _remove(current: Session, registry: Registry, snapshots: Sequence[Snapshot], removal: Removal) -> None:
    gone: list[str] = []
    for snapshot in snapshots:
        with goes_on(lambda: _interrupted(gone)):
            try:
                deleted = await _deleted(current, registry, snapshot, removal)
            except Conflict as error:
                raise await _explained(registry, snapshot, removal, error, gone) from error
        gone.append(label(snapshot))
        if current.as_json:
            current.output.json(deleted)
        else:
            _tell_deleted(current, snapshot, removal.variant, deleted)


async def _deleted(
    current: Session, registry: Registry, snapshot: Snapshot, removal: Removal
) -> DeleteSnapshotResponse:
    """Deletes it; tells people for whom it waits."""
    pins = await pins_on(registry, [snapshot]) if removal.force and not current.as_json else []

    async def delete() -> DeleteSnapshotResponse:
        return await registry.delete_snapshot(
            snapshot.name, variant=removal.variant, force=removal.force, timeout=removal.timeout
        )

    if not pins:
        return await delete()
    who = shown.holders(pins)
    with display(current.output.console) as waiting:
        waiting.show(Step(key="wait", doing=f"waiting for {who}", done=f"released by {who}"))
        deleted = await delete()
        waiting.finish()
    return deleted


def _interrupted(gone: Sequence[str]) -> str:
    before = f"{shown.list_words(gone)} went before that; " if gone else ""
    return f"{before}what it waited for stays, and those who hold it are no longer asked"


async def _explained(
    registry: Registry, snapshot: Snapshot, removal: Removal, error: Conflict, gone: Sequence[str] = ()
) -> Conflict:
    """Who holds it, and what to type to have them let go; `gone` is what went before that."""
    if error.reason != "SNAPSHOT_PINNED":
        return error
    pins = await pins_on(registry, [snapshot])
    keeps = [pin for pin in pins if not pin.HasField("expire_time")]
    if removal.force and not keeps:
        text = error.text  # it has what those who were asked have answered
    else:
        held_by = shown.list_words(sorted({pin.subject for pin in error.preconditions}))
        text = f"{label(snapshot)} is held by {held_by}{'' if gone else '; nothing was removed'}"
    told = Conflict(error.reason, text, code=error.code, details=error.details)
    if gone:
        told.add_note(f"{shown.list_words(gone)} went before that")
    if removal.force and not keeps:
        told.add_note("--timeout DURATION waits longer for those who have not answered")
    elif not keeps:
        told.add_note(f"`{removal.command} --force` asks to let go, and waits for that")
    for pin in keeps or [pin for pin in pins if not pin.claim]:  # one with a claim is a program's, which is to be asked
        told.add_note(f"`slipway cache unpin {shown.pin_id(pin)}` ends the pin of {pin.holder}")
    return told


def _tell_deleted(current: Session, snapshot: Snapshot, variant: str, deleted: DeleteSnapshotResponse) -> None:
    released = shown.list_words(deleted.released_holders)
    what = f"{variant} of {label(snapshot)}" if variant else label(snapshot)
    if variant and not deleted.paths:
        current.output.line(f"nothing of {what} was in the cache")
        return
    current.output.line(
        ("✓ ", "green"),
        f"removed {what}: {fmt.size(deleted.freed_bytes)} freed",
        f", after {released} had let go" if released else "",
    )


def _tell_plan(current: Session, snapshots: Sequence[Snapshot], planned: Sequence[DeleteSnapshotResponse]) -> None:
    if current.as_json:
        for plan in planned:
            current.output.json(plan)
        return
    for snapshot, plan in zip(snapshots, planned, strict=True):
        size = fmt.size(plan.freed_bytes)
        if not plan.paths:
            current.output.line("nothing of that is in the cache: ", (label(snapshot), "bold"))
            continue
        files = fmt.plural(len(plan.paths), "file")
        current.output.line(f"would remove {files} of ", (label(snapshot), "bold"), f", and free {size}")
        for path in plan.paths:
            current.output.line((f"  {path}", "dim"))
    if len(planned) > 1:
        total = sum(plan.freed_bytes for plan in planned)
        current.output.line(f"{fmt.size(total)} in all, and what they share only with each other")
