"""What is in the cache, in words for people. Pure: from the contract's messages to texts."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text
from slipway.registry.v1.snapshot_pb2 import Finding, FindingKind, Pin, PruneItem, PruneReason, Snapshot, SnapshotFile

from slipway_client.cli import format as fmt

SHORT_ID = 8
"""Digits of a pin's id that are shown; `slipway cache unpin` takes as many."""


def contents(snapshot: Snapshot) -> Text:
    """How much of the commit is there: everything, whole variants, parts of some; and whether any of it is damaged."""
    words: list[tuple[str, str]] = []
    if snapshot.damaged_count:
        words.append((f"{fmt.plural(snapshot.damaged_count, 'file')} damaged", "bold red"))
    if snapshot.complete:
        words.append(("everything", "green"))
    else:
        words += [(variant.name, "") for variant in snapshot.variants if variant.complete]
        parts = [variant.name for variant in snapshot.variants if variant.present_bytes and not variant.complete]
        words += [(f"part of {', '.join(parts)}", "yellow")] if parts else []
    return Text(", ").join(Text(word, style) for word, style in words or [("no weights", "dim")])


def ago(when: Timestamp, now: datetime) -> str:
    """`3 h ago` in its largest unit."""
    seconds = (now - when.ToDatetime(UTC)).total_seconds()
    return "just now" if seconds < 1 else f"{largest(seconds)} ago"


def largest(seconds: float) -> str:
    """A duration in its largest unit: `12 s`, `3 h`, `41 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def until(pin: Pin, now: datetime) -> str:
    """When a pin ends: `in 23 h`, or that it does not end by itself."""
    if not pin.HasField("expire_time"):
        return "kept"
    return f"in {largest(max(0.0, (pin.expire_time.ToDatetime(UTC) - now).total_seconds()))}"


def pin_id(pin: Pin) -> str:
    """What people type for it."""
    return pin.name.removeprefix("pins/")[:SHORT_ID]


def holders(pins: Iterable[Pin]) -> str:
    """Who holds, each once."""
    return ", ".join(sorted({pin.holder for pin in pins}))


def covers(pin: Pin) -> str:
    """What a pin holds."""
    if not pin.paths:
        return "everything"
    return pin.paths[0] if len(pin.paths) == 1 else fmt.plural(len(pin.paths), "file")


def standing(file: SnapshotFile) -> Text:
    """How a file of a snapshot is."""
    if file.damaged:
        return Text("damaged", style="bold red")
    if not file.present:
        return Text("not here", style="dim")
    if file.HasField("verify_time"):
        return Text("verified", style="green")
    return Text("not verified yet")


_FINDINGS = {
    FindingKind.FINDING_KIND_DAMAGED: ("✗", "red", "damaged"),
    FindingKind.FINDING_KIND_MISSING: ("✗", "red", "missing"),
    FindingKind.FINDING_KIND_UNREADABLE: ("✗", "red", "cannot be read"),
    FindingKind.FINDING_KIND_REPAIRED: ("✓", "green", "fetched again"),
}


def finding(found: Finding) -> Text:
    """A finding of a verification in a line."""
    sign, style, word = _FINDINGS.get(found.kind, ("✗", "red", "wrong"))
    text = Text.assemble((sign, style), f" {found.path}  ", (word, style))
    if found.detail:
        text.append(f": {found.detail}")
    elif found.kind == FindingKind.FINDING_KIND_DAMAGED and found.actual_blob_id:
        text.append(f": its hash is {found.actual_blob_id[:12]}…, it should be {found.expected_blob_id[:12]}…")
    return text


def why(item: PruneItem) -> str:
    """Why a prune takes something."""
    idle = largest(item.idle.ToTimedelta().total_seconds())
    match item.reason:
        case PruneReason.PRUNE_REASON_QUOTA:
            return f"over the quota; not used for {idle}"
        case PruneReason.PRUNE_REASON_AGE:
            return f"not used for {idle}"
        case PruneReason.PRUNE_REASON_ABANDONED:
            return f"parts of downloads that nobody has wanted for {idle}"
        case _:
            return "by a rule of a newer registry"


def share(part: int, whole: int, width: int) -> Text:
    """A bar of so many columns for a part of the largest."""
    filled = round(width * part / whole) if whole else 0
    return Text("━" * max(filled, 1 if part else 0), style="cyan")


def list_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
