from datetime import UTC, datetime, timedelta, timezone

import pytest
from slipway_service.times import duration, seconds, timestamp


def test_a_datetime_and_its_seconds_are_the_same_time() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    assert timestamp(at) == timestamp(at.timestamp())
    message = timestamp(at.astimezone(timezone(timedelta(hours=9))))
    assert message is not None
    assert message.ToDatetime(tzinfo=UTC) == at


@pytest.mark.parametrize("length", [0.0, 0.25, 1.1, 90.0, 86_400.0])
def test_a_length_comes_back(length: float) -> None:
    message = duration(length)
    assert message is not None
    assert seconds(message) == length


def test_what_is_unset_stays_unset() -> None:
    assert timestamp(None) is None
    assert duration(None) is None
