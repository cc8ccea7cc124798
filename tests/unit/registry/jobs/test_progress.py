import pytest
from slipway_registry.jobs.progress import Rate


def test_nothing_is_said_before_there_is_something_to_say() -> None:
    rate = Rate()
    assert rate.bytes_per_second is None
    rate.add(0, 10.0)
    assert rate.bytes_per_second is None
    rate.add(1_000_000, 10.5)
    assert rate.bytes_per_second == pytest.approx(2_000_000)
    assert rate.eta(1_000_000) is None


def test_a_steady_rate_gives_an_eta() -> None:
    rate = Rate()
    for step in range(20):
        rate.add(step * 250_000, step * 0.25)
    assert rate.bytes_per_second == pytest.approx(1_000_000)
    assert rate.eta(5_000_000) == pytest.approx(5.0)


def test_a_new_speed_counts_half_after_three_seconds() -> None:
    rate = Rate()
    total = 0
    for step in range(200):
        total += 100_000
        rate.add(total, step * 0.1)
    for step in range(200, 230):
        rate.add(total, step * 0.1)
    assert rate.bytes_per_second == pytest.approx(500_000, rel=0.05)


def test_a_stalled_transfer_has_no_eta() -> None:
    rate = Rate()
    rate.add(0, 0.0)
    for second in range(1, 100):
        rate.add(1000, float(second))
    assert rate.eta(1_000_000) is None


def test_bytes_that_were_given_up_do_not_count_against_the_rate() -> None:
    rate = Rate()
    rate.add(1_000_000, 0.0)
    rate.add(0, 1.0)
    assert rate.bytes_per_second == 0
