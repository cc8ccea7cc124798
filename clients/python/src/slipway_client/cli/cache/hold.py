"""`slipway cache pin` and `unpin`."""

import getpass
import re
import socket
from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

import typer
from slipway.registry.v1.snapshot_pb2 import Pin
from slipway.registry.v1.snapshot_service_pb2 import PinSnapshotResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.look import pins_on
from slipway_client.cli.cache.naming import named, the_one
from slipway_client.cli.quantities import parse_duration
from slipway_client.cli.session import session, usage
from slipway_client.downloads import select
from slipway_client.errors import NotFound
from slipway_client.registry import Registry

Holder = Annotated[str, typer.Option(help="Who holds it. [you, as user@host]", show_default=False)]

_PIN_ID = re.compile(r"(?:pins/)?([0-9a-f]{4,32})")


def pin(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to hold: REPO or REPO@REVISION.")],
    holder: Holder = "",
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="Until when, unless pinned again: 12h, 30d. [until unpinned]")
    ] = "",
    variant: Annotated[str, typer.Option(help="Only this variant, with what belongs to it.")] = "",
    files: Annotated[list[str] | None, typer.Option("--file", metavar="GLOB", help="Only these. Repeatable.")] = None,
    claim: Annotated[str, typer.Option("--for", metavar="WHAT", help="What it is needed for, in a word.")] = "",
) -> None:
    """Hold a model, so that nothing removes it. The same holder pinning it again renews the pin."""
    current = session(context)
    selection = usage(lambda: select(variant=variant, include=files or ()))
    seconds = usage(lambda: parse_duration(ttl)) if ttl else None

    async def work() -> PinSnapshotResponse:
        async with current.registry() as registry:
            snapshot = await the_one(registry, model)
            return await registry.pin_snapshot(
                snapshot.repo_id,
                snapshot.commit,
                holder=holder or own_name(),
                claim=claim,
                selection=selection,
                ttl=seconds,
                keep=seconds is None,
            )

    answer = current.run(work)
    if current.as_json:
        current.output.json(answer)
        return
    taken = answer.pin
    size = fmt.size(sum(entry.size_bytes for entry in answer.manifest))
    ends = "until it is unpinned"
    if taken.HasField("expire_time"):
        ends = f"until {taken.expire_time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M}"
    current.output.line(
        ("✓ ", "green"),
        f"{taken.holder} holds {fmt.plural(len(answer.manifest), 'file')} of ",
        (f"{taken.repo_id}@{fmt.commit(taken.commit)}", "bold"),
        f" ({size}) {ends}",
    )
    current.output.line((f"  `slipway cache unpin {shown.pin_id(taken)}` ends it", "dim"))


def unpin(
    context: typer.Context,
    what: Annotated[
        list[str], typer.Argument(metavar="PIN|MODEL", help="Pins as `slipway cache pins` lists them, or models.")
    ],
    holder: Annotated[
        str, typer.Option(help="Whose pins on a MODEL end. [yours, as user@host]", show_default=False)
    ] = "",
) -> None:
    """End pins: those named, or those that a holder has on a model."""
    current = session(context)

    async def work() -> list[Pin]:
        async with current.registry() as registry:
            ended = {pin.name: pin for one in what for pin in await _meant(registry, one, holder or own_name())}
            for name in ended:
                await registry.unpin_snapshot(name)
            return list(ended.values())

    for ended in current.run(work):
        if current.as_json:
            current.output.json(ended)
        else:
            model = f"{ended.repo_id}@{fmt.commit(ended.commit)}"
            current.output.line(("✓ ", "green"), f"{ended.holder} no longer holds ", (model, "bold"))


def own_name() -> str:
    """The holder that a person is unless they say otherwise."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


async def _meant(registry: Registry, what: str, holder: str) -> Sequence[Pin]:
    """The pins that an id, the beginning of one, or a model means."""
    if found := _PIN_ID.fullmatch(what):
        pins = [pin for pin in await registry.list_pins() if pin.name.startswith(f"pins/{found[1]}")]
        if len(pins) > 1:
            raise typer.BadParameter(f"{what} begins the ids of {fmt.plural(len(pins), 'pin')}; give more of it")
        if pins:
            return pins
    if what.startswith("pins/"):
        raise NotFound("PIN_NOT_FOUND", f"there is no {what}: it was ended, or its time ran out")
    pins = await pins_on(registry, await named(registry, [what]))
    mine = [pin for pin in pins if pin.holder == holder]
    if not mine:
        error = NotFound("PIN_NOT_FOUND", f"{holder} does not hold {what}; {shown.holders(pins) or 'nobody'} does")
        for pin in pins:
            error.add_note(f"`slipway cache unpin {shown.pin_id(pin)}` ends the pin of {pin.holder}")
        raise error
    return mine
