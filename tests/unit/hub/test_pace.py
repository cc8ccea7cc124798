from tests.hub.throttle import Pace


def test_bytes_are_spread_over_time() -> None:
    pace = Pace()
    waits = [pace.reserve(64, 128.0, now) for now in (10.0, 10.0, 10.25, 10.25)]
    assert waits == [0, 0.5, 0.75, 1.25]


def test_idle_time_is_not_saved_up() -> None:
    pace = Pace()
    assert pace.reserve(100, 100.0, 0.0) == 0
    assert pace.reserve(100, 100.0, 60.0) == 0
    assert pace.reserve(100, 100.0, 60.0) == 1.0
