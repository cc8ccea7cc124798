from dataclasses import replace
from typing import Any

import pytest
from slipway_registry.jobs.retry import Backoff, RetryPolicy, Verdict, after_setback

POLICY = RetryPolicy()


def verdict(**given: Any) -> Verdict:
    values: dict[str, Any] = {
        "away": False,
        "progressed": False,
        "tries": 0,
        "away_for": 0.0,
        "away_looks": 0,
        "retry_after": None,
        "chance": lambda: 1.0,
    }
    return after_setback(POLICY, **values | given)


def test_delays_double_up_to_the_cap_and_end() -> None:
    backoff = Backoff(0.5, 3.0, 5, lambda: 1.0)
    assert [backoff(tries) for tries in range(1, 7)] == [0.5, 1.0, 2.0, 3.0, 3.0, None]


def test_chance_halves_a_delay_at_most() -> None:
    assert Backoff(2.0, 8.0, 5, lambda: 0.0)(2) == 2.0


@pytest.mark.parametrize(("tries", "delay"), [(0, 1.0), (1, 5.0), (2, 30.0), (3, None)])
def test_three_tries_after_1_5_and_30_seconds(tries: int, delay: float | None) -> None:
    assert verdict(tries=tries) == Verdict(delay, tries + 1)


def test_bytes_make_every_count_begin_anew() -> None:
    assert verdict(tries=3, progressed=True) == Verdict(1.0, 1)


def test_the_other_side_may_ask_for_more() -> None:
    assert verdict(retry_after=7.0).delay == 7.0
    assert verdict(retry_after=0.1).delay == 1.0
    assert verdict(away=True, retry_after=300.0).delay == 300.0


def test_an_absent_hub_costs_no_try() -> None:
    assert verdict(away=True, tries=2) == Verdict(2.0, 2)


def test_an_absent_hub_is_asked_ever_more_seldom() -> None:
    delays = [verdict(away=True, away_looks=looks, away_for=9.0).delay for looks in range(8)]
    assert delays == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("left", "asked", "delay", "last"), [(9.0, 0.0, 2.0, False), (1.5, 0.0, 1.5, True), (300.0, 900.0, 300.0, True)]
)
def test_an_absent_hub_is_waited_for_a_day(left: float, asked: float, delay: float, last: bool) -> None:
    found = verdict(away=True, away_for=86_400.0 - left, retry_after=asked)
    assert (found.delay, found.last) == (delay, last)
    assert verdict(away=True, away_for=90_000.0) == Verdict(0.0, 0, last=True)


def test_policies_are_values() -> None:
    assert replace(POLICY, job_delays=()) != POLICY
