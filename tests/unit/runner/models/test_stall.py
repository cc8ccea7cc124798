from slipway_runner.models.stall import StallTimer


def test_news_moves_the_deadline() -> None:
    timer = StallTimer.start(100.0, patience=10.0)
    assert timer.verdict(109.9) is None
    assert timer.verdict(110.0) == "no progress for 10 s"
    assert timer.news(109.0).verdict(118.9) is None


def test_a_suspension_excuses_silence_and_does_not_count_against_the_ceiling() -> None:
    timer = StallTimer.start(0.0, patience=10.0, ceiling=100.0).suspend(5.0)
    assert timer.deadline is None
    assert timer.verdict(10_000.0) is None
    resumed = timer.resume(10_000.0)
    assert resumed.verdict(10_009.9) is None
    assert resumed.verdict(10_010.0) == "no progress for 10 s"
    assert resumed.news(10_090.0).deadline == 10_095.0


def test_what_talks_without_getting_anywhere_meets_the_ceiling() -> None:
    timer = StallTimer.start(0.0, patience=10.0, ceiling=25.0)
    for now in (8.0, 16.0, 24.0):
        timer = timer.news(now)
        assert timer.verdict(now) is None
    assert "not ready after 25 s" in str(timer.verdict(25.0))


def test_suspending_twice_and_resuming_what_runs_change_nothing() -> None:
    timer = StallTimer.start(0.0, patience=10.0)
    assert timer.resume(5.0) == timer
    assert timer.suspend(1.0).suspend(2.0) == timer.suspend(1.0)


def test_news_of_before_the_timer_was_started_or_resumed_changes_nothing() -> None:
    timer = StallTimer.start(100.0, patience=10.0)
    assert timer.news(95.0) == timer
    resumed = timer.suspend(105.0).resume(200.0)
    assert resumed.news(105.0) == resumed
