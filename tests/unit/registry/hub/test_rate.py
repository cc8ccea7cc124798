"""The budget follows what the Hub says of its quotas."""

import pytest
from httpx2 import Headers
from slipway_registry.hub.rate import API, RESOLVERS, RateBudget, retry_after


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> RateBudget:
    return RateBudget(clock)


def said(left: int, seconds: int, bucket: str = API) -> Headers:
    return Headers({"RateLimit": f'"{bucket}";r={left};t={seconds}'})


def test_unknown_quotas_allow_everything(budget: RateBudget) -> None:
    assert [budget.take("me", API) for _ in range(1000)] == [0.0] * 1000


def test_requests_are_counted_until_the_window_ends(budget: RateBudget, clock: Clock) -> None:
    budget.learn("me", API, 200, said(2, 55))
    assert [budget.take("me", API) for _ in range(3)] == [0.0, 0.0, 55.0]
    clock.now += 50
    assert budget.take("me", API) == 5.0
    clock.now += 5
    assert budget.take("me", API) == 0.0


def test_callers_and_buckets_have_quotas_of_their_own(budget: RateBudget) -> None:
    budget.learn("me", API, 200, said(0, 10))
    assert budget.take("me", API) == 10.0
    assert budget.take("me", RESOLVERS) == 0.0
    assert budget.take("you", API) == 0.0


def test_the_answer_names_the_bucket(budget: RateBudget) -> None:
    budget.learn("me", API, 200, said(0, 10, RESOLVERS))
    assert budget.take("me", RESOLVERS) == 10.0
    assert budget.take("me", API) == 0.0


def test_answers_that_overtake_each_other_do_not_give_requests_back(budget: RateBudget) -> None:
    budget.learn("me", API, 200, said(1, 10))
    budget.learn("me", API, 200, said(3, 10))
    assert [budget.take("me", API) for _ in range(2)] == [0.0, 10.0]


def test_a_new_window_counts_anew(budget: RateBudget, clock: Clock) -> None:
    budget.learn("me", API, 200, said(0, 10))
    clock.now += 10
    budget.learn("me", API, 200, said(5, 300))
    assert budget.take("me", API) == 0.0


def test_a_refusal_says_how_long(budget: RateBudget) -> None:
    assert budget.learn("me", API, 429, said(0, 42)) == 42.0
    assert budget.take("me", API) == 42.0
    assert budget.learn("you", API, 429, Headers({"Retry-After": "7"})) == 7.0
    assert budget.take("you", API) == 7.0
    assert budget.learn("it", API, 429, Headers()) is None
    assert budget.take("it", API) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("99999", 3600.0),
        ("9" * 400, None),
        ("-1", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(Headers({"Retry-After": value})) == seconds


def test_nonsense_teaches_nothing(budget: RateBudget) -> None:
    for value in ("", "x", '"api";r=;t=', '"api";r=-1;t=5', '"api";r=0;t=99999999999'):
        budget.learn("me", API, 200, Headers({"RateLimit": value}))
    assert budget.take("me", API) == 0.0
