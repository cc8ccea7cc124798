"""When pins end."""

import uuid
from pathlib import Path

from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.records import CacheRecords
from slipway_registry.jobs.store import Store
from slipway_service.weights.names import Commit, RepoId

START = 1_700_000_000.0


def opened(directory: Path, now: float) -> PinBook:
    return PinBook(CacheRecords(Store.in_directory(directory, uuid.uuid4())), now)


def take(pins: PinBook, holder: str, ttl: float | None, *, refusal: str = "") -> str:
    pin = pins.take(
        RepoId("org/m"), Commit("a" * 40), holder=holder, claim="", paths=(), now=START, ttl=ttl, refusal=refusal
    )
    return pin.id


def test_they_end_when_their_time_is_over(tmp_path: Path) -> None:
    pins = opened(tmp_path, START)
    short = take(pins, "short", 10)
    take(pins, "long", 20)
    take(pins, "kept", None)
    assert pins.expire(START + 9) == []
    assert [it.id for it in pins.expire(START + 10)] == [short]
    assert sorted(it.holder for it in pins.all()) == ["kept", "long"]


def test_holders_may_come_back_to_a_registry_that_was_away_for_longer(tmp_path: Path) -> None:
    before = opened(tmp_path, START)
    for holder, ttl in (("short", 10), ("long", 900_000), ("kept", None)):
        take(before, holder, ttl)
    back = START + 86_400
    pins = opened(tmp_path, back)
    assert {it.holder: it.expire_time for it in pins.all()} == {
        "short": back + 60,
        "long": START + 900_000,
        "kept": None,
    }
    assert pins.expire(back + 59) == []
    assert [it.holder for it in pins.expire(back + 60)] == ["short"]


def test_a_no_that_comes_when_nobody_asks_is_none(tmp_path: Path) -> None:
    """It would be taken for the answer to the next who asks, without anybody being asked."""
    pins = opened(tmp_path, START)
    take(pins, "h", 60)
    for asked in (False, True, False):
        pins.request_release(pins.all(), wanted=asked)
        take(pins, "h", 60, refusal="it is in use")
        take(pins, "h", 60)  # a renewal says nothing
        assert [it.refusal for it in pins.all()] == (["it is in use"] if asked else [""])
    pins.request_release(pins.all(), wanted=True)
    assert [(it.release_requested, it.firm) for it in pins.all()] == [(True, False)]
