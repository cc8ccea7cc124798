"""One fraction from many sources."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_runner.progress.signals import (
    Bytes,
    Cause,
    Detail,
    Fraction,
    InForce,
    LoadStage,
    Ready,
    Shards,
    Signal,
    Source,
    Stage,
)
from slipway_runner.progress.tracker import STAGES, UNFINISHED, Tracker
from slipway_service.fault import Reason

# A tenth of it starts, six tenths load, three warm up.
EXPECTED: Mapping[LoadStage, float] = {
    LoadStage.STARTING: 10.0,
    LoadStage.LOADING_WEIGHTS: 60.0,
    LoadStage.WARMING_UP: 30.0,
}


def tracker(*signals: Signal, measured: bool = False) -> Tracker:
    one = Tracker(EXPECTED, measured=measured, now=0.0)
    for signal in signals:
        one.feed(signal, 0.0)
    return one


def test_stages_take_their_share_of_the_whole() -> None:
    one = tracker()
    fractions = []
    for stage in (LoadStage.STARTING, LoadStage.LOADING_WEIGHTS, LoadStage.WARMING_UP):
        one.feed(Stage(stage), 0.0)
        fractions.append(one.progress(0.0).fraction)
    assert fractions == pytest.approx([0.0, 0.1, 0.7])


def test_shards_of_a_log_are_shown_while_they_load() -> None:
    one = tracker(Shards(1, 4, source=Source.LOG))
    progress = one.progress(0.0)
    assert (progress.stage, progress.shards_done, progress.shards_total) == (LoadStage.LOADING_WEIGHTS, 1, 4)
    assert progress.fraction == pytest.approx(0.1 + 0.6 / 4)
    assert (progress.source, progress.detail) == (Source.LOG, "loading weights: 1 of 4 files")


def test_the_kernel_fills_in_what_lies_between_two_shards() -> None:
    one = tracker(Shards(1, 4, source=Source.LOG))
    for done, share in ((40, 0.4), (90, 0.5), (10, 0.5)):  # past the second shard: the log knows better
        one.feed(Bytes(done, 100, Source.KERNEL), 0.0)
        assert one.progress(0.0).fraction == pytest.approx(0.1 + 0.6 * share)


def test_the_better_source_counts_whatever_the_others_say() -> None:
    one = tracker(Bytes(80, 100, Source.KERNEL), Fraction(LoadStage.LOADING_WEIGHTS, 0.9, Source.REPORTED))
    assert one.progress(0.0).fraction == pytest.approx(0.1 + 0.6 * 0.9)
    assert one.progress(0.0).source is Source.REPORTED


def test_time_fills_a_stage_that_says_nothing_but_never_all_of_it() -> None:
    one = tracker(Stage(LoadStage.LOADING_WEIGHTS))
    assert one.progress(30.0).fraction == pytest.approx(0.1 + 0.3)
    assert one.progress(30.0).source is Source.ESTIMATED
    assert one.progress(9000.0).fraction == pytest.approx(0.1 + 0.6 * 0.95)


def test_reading_what_was_only_mapped_is_what_warming_up_consists_of() -> None:
    one = tracker(Stage(LoadStage.WARMING_UP), Bytes(50, 100, Source.KERNEL))
    assert one.progress(0.0).fraction == pytest.approx(0.7 + 0.3 * 0.5)
    assert one.progress(0.0).bytes_done == 50


def test_bytes_that_were_read_before_do_not_fill_the_warming_up() -> None:
    one = tracker(Bytes(100, 100, Source.KERNEL), Stage(LoadStage.WARMING_UP), Bytes(100, 100, Source.KERNEL))
    assert one.progress(0.0).fraction == pytest.approx(0.7)


def test_shards_stay_to_be_seen_when_weights_are_loaded() -> None:
    progress = tracker(Shards(4, 4), Stage(LoadStage.WARMING_UP)).progress(0.0)
    assert (progress.shards_done, progress.shards_total, progress.detail) == (4, 4, "warming up")


def test_bytes_of_a_download_are_not_those_of_the_weights() -> None:
    one = tracker(Stage(LoadStage.FETCHING), Bytes(70, 100, Source.REPORTED))
    assert (one.progress(0.0).bytes_done, one.stage) == (70, LoadStage.FETCHING)
    one.feed(Stage(LoadStage.STARTING), 0.0)
    assert one.progress(0.0).bytes_total == 0


def test_a_stage_is_never_left_backwards() -> None:
    one = tracker(Stage(LoadStage.WARMING_UP), Stage(LoadStage.STARTING), Shards(1, 4))
    assert one.stage is LoadStage.WARMING_UP


def test_only_an_answer_makes_it_whole() -> None:
    one = tracker(Fraction(LoadStage.WARMING_UP, 1.0))
    assert one.progress(0.0).fraction == UNFINISHED
    one.finish(1.0)
    assert one.progress(1.0).fraction == 1.0


def test_what_each_stage_took_is_told_for_the_next_time() -> None:
    one = Tracker(EXPECTED, measured=False, now=100.0)
    one.feed(Stage(LoadStage.STARTING), 101.0)
    one.feed(Shards(1, 4), 105.0)
    one.feed(Stage(LoadStage.WARMING_UP), 145.0)
    assert one.finish(150.0) == {
        LoadStage.QUEUED: 1.0,
        LoadStage.STARTING: 4.0,
        LoadStage.LOADING_WEIGHTS: 40.0,
        LoadStage.WARMING_UP: 5.0,
    }


def test_a_forecast_needs_a_pace_or_a_history() -> None:
    assert tracker(Stage(LoadStage.LOADING_WEIGHTS)).progress(5.0).eta_seconds is None
    assert tracker(Stage(LoadStage.LOADING_WEIGHTS), measured=True).progress(5.0).eta_seconds == pytest.approx(85.0)
    paced = tracker(Fraction(LoadStage.LOADING_WEIGHTS, 0.25))
    assert paced.progress(5.0).eta_seconds == pytest.approx(15.0 + 30.0)
    assert paced.progress(0.5).eta_seconds is None


@pytest.mark.parametrize(
    ("signal", "news"),
    [
        (Shards(1, 4), False),
        (Shards(2, 4), True),
        (Detail("other words"), True),
        (Ready(), False),
        (Cause(Reason.PORT_IN_USE, ""), False),
        (InForce({}), False),
        (Stage(LoadStage.WARMING_UP), True),
        (Stage(LoadStage.STARTING), False),
    ],
)
def test_only_what_goes_forward_is_news(signal: Signal, news: bool) -> None:
    one = tracker(Shards(1, 4))
    one.progress(50.0)
    one.feed(signal, 60.0)
    assert (one.news_at == 60.0) == news


COUNT = st.integers(0, 10)
SOURCE = st.sampled_from(Source)
SIGNALS = st.one_of(
    st.builds(Stage, st.sampled_from(STAGES), SOURCE),
    st.builds(Shards, COUNT, COUNT, st.just(""), SOURCE),
    st.builds(Bytes, COUNT, COUNT, SOURCE),
    st.builds(Fraction, st.sampled_from(STAGES), st.floats(-1, 2), SOURCE),
    st.builds(Detail, st.text(max_size=3)),
)


@given(
    steps=st.lists(st.tuples(SIGNALS, st.floats(0, 100)), max_size=40),
    expected=st.dictionaries(st.sampled_from(STAGES), st.floats(0, 1000)),
)
def test_the_fraction_never_goes_back_nor_out_of_bounds(
    steps: list[tuple[Signal, float]], expected: Mapping[LoadStage, float]
) -> None:
    one = Tracker(expected, measured=True, now=0.0)
    now, last = 0.0, 0.0
    for signal, passed in steps:
        now += passed
        one.feed(signal, now)
        progress = one.progress(now)
        assert last <= progress.fraction <= UNFINISHED
        assert progress.eta_seconds is None or progress.eta_seconds >= 0
        last = progress.fraction
    one.finish(now)
    assert one.progress(now).fraction == 1.0
