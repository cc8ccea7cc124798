from collections.abc import Callable
from pathlib import Path

import pytest
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_registry.hub.rate import RateBudget
from slipway_registry.transfer.choice import HTTP_LIMIT, Fetches, FirstThatBrings, Transport
from slipway_registry.transfer.engine import Fetch
from slipway_registry.transfer.errors import Away, Setback
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.http import HttpFetch
from slipway_registry.transfer.links import HubFile, HubLimits
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters
from slipway_registry.transfer.persist import Patience
from slipway_registry.transfer.wire import Wire
from slipway_registry.transfer.xet import XetFetch, XetSessions
from slipway_service.weights.names import Commit, FilePath, RepoId

FILE = HubFile(endpoint="https://hub", repo=RepoId("org/m"), commit=Commit("c" * 40), path=FilePath("m.gguf"))
XET = "3" * 64


def chosen(transport: Transport, size: int, xet_hash: str, mismatches: int = 0) -> list[type]:
    fetches = Fetches(
        wire=Wire(),
        limits=HubLimits(RateBudget()),
        patience=Patience(lambda _: None, 0.0),
        sessions=XetSessions(),
        transport=transport,
    )
    fetch = fetches.fetch(FILE, size, xet_hash, lambda: ANONYMOUS, mismatches=mismatches)
    return [type(way) for way in fetch.ways] if isinstance(fetch, FirstThatBrings) else [type(fetch)]


@pytest.mark.parametrize(
    ("transport", "size", "xet_hash", "ways"),
    [
        (Transport.AUTO, 10, "", [HttpFetch]),
        (Transport.AUTO, 10, XET, [HttpFetch, XetFetch]),
        (Transport.AUTO, HTTP_LIMIT, XET, [HttpFetch, XetFetch]),
        (Transport.AUTO, HTTP_LIMIT + 1, XET, [XetFetch]),
        (Transport.AUTO, HTTP_LIMIT + 1, "", [HttpFetch]),
        (Transport.HTTP, HTTP_LIMIT + 1, XET, [HttpFetch]),
        (Transport.XET, 10, XET, [XetFetch]),
        (Transport.XET, 10, "", [HttpFetch]),
    ],
)
def test_ways(transport: Transport, size: int, xet_hash: str, ways: list[type]) -> None:
    assert chosen(transport, size, xet_hash) == ways


def test_a_wrong_hash_turns_the_ways_round() -> None:
    assert chosen(Transport.AUTO, 10, XET, mismatches=1) == [XetFetch, HttpFetch]


def way(log: list[str], name: str, error: Exception | None = None, count: int = 0) -> Fetch:
    def fetch(partial: Partial, halt: Halt, counters: Counters) -> None:
        log.append(name)
        if count:
            partial.write(0, memoryview(bytes(count)))
        if error:
            raise error

    return fetch


@pytest.mark.parametrize(
    ("first", "tried", "raised"),
    [
        (lambda log: way(log, "one"), ["one"], None),
        (lambda log: way(log, "one", Setback("no")), ["one", "two"], None),
        (lambda log: way(log, "one", Setback("no"), 5), ["one"], Setback),
        (lambda log: way(log, "one", Away("no")), ["one"], Away),
    ],
    ids=["works", "brings nothing", "brought something", "nobody there"],
)
def test_the_next_way_is_tried_where_one_brings_nothing(
    tmp_path: Path, first: Callable[[list[str]], Fetch], tried: list[str], raised: type[Exception] | None
) -> None:
    log: list[str] = []
    both = FirstThatBrings([first(log), way(log, "two")])
    with Partial.open(tmp_path / "p", 10) as partial:
        if raised is None:
            both(partial, Halt(), Counters())
        else:
            with pytest.raises(raised):
                both(partial, Halt(), Counters())
    assert log == tried


def test_the_last_ways_error_counts(tmp_path: Path) -> None:
    log: list[str] = []
    both = FirstThatBrings([way(log, "one", Setback("first")), way(log, "two", Setback("second"))])
    with Partial.open(tmp_path / "p", 10) as partial, pytest.raises(Setback, match="second"):
        both(partial, Halt(), Counters())
