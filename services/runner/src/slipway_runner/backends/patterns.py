"""What lines of a server's log say of a load, by regular expressions of the operator's."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from slipway_runner.progress.signals import Bytes, Fraction, LoadStage, Ready, Shards, Signal, Source, Stage


class Unit(StrEnum):
    """What `done` and `total` count."""

    SHARDS = "shards"
    BYTES = "bytes"
    STEPS = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressPattern:
    """Lines that `pattern` is found in, and what they tell.

    Attributes:
        pattern: its groups `done` and `total` are whole numbers of `unit`; its group `percent` is a share, 0 to 100.
        stage: what goes on.
        unit: shards and bytes are of the weights; steps are of `stage`.
        ready: the server says that it serves. Only a hint to ask it.
    """

    pattern: re.Pattern[str]
    stage: LoadStage = LoadStage.LOADING_WEIGHTS
    unit: Unit = Unit.SHARDS
    ready: bool = False


def read_progress(patterns: Iterable[ProgressPattern], line: str) -> tuple[Signal, ...]:
    """What the first pattern that is found in a line makes of it; nothing where none is."""
    for one in patterns:
        if found := one.pattern.search(line):
            return tuple(_signals(one, found))
    return ()


def _signals(pattern: ProgressPattern, found: re.Match[str]) -> Iterator[Signal]:
    if pattern.ready:
        yield Ready()
        return
    yield Stage(pattern.stage)
    groups = found.groupdict()
    if (percent := _number(groups.get("percent"))) is not None and percent <= 100:
        yield Fraction(pattern.stage, percent / 100, Source.LOG)
    done, total = _number(groups.get("done")), _number(groups.get("total"))
    if done is None or not total or done > total:
        return
    match pattern.unit:
        case Unit.SHARDS:
            yield Shards(int(done), int(total), source=Source.LOG)
        case Unit.BYTES:
            yield Bytes(int(done), int(total), Source.LOG)
        case Unit.STEPS:
            yield Fraction(pattern.stage, done / total, Source.LOG)


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text, re.ASCII) else None
