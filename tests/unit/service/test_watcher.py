"""What one subscriber gets, step by step, with a clock of its own."""

import pytest
from slipway_service.eventlog import Bounds, Cursor, EventLog, Filter
from slipway_service.watcher import DEFAULT_PACE, Pace, Watch, Watcher

from tests.unit.service.watching import decode, load, progress, said, unload

ALL = Watch()


def watcher(log: EventLog, watch: Watch = ALL, *, now: float = 0.0, pace: Pace = DEFAULT_PACE) -> Watcher:
    return Watcher(log, watch, now=now, pace=pace, uniform=lambda low, high: (low + high) / 2)


@pytest.fixture
def log() -> EventLog:
    return EventLog("epoch")


def test_no_batch_before_synced_has_a_cursor(log: EventLog) -> None:
    for number in range(5):
        load(log, f"models/{number}")
    subject = watcher(log, pace=Pace(batch_events=2))
    batches = [decode(batch) for _ in range(3) if (batch := subject.take(0))]
    assert [len(batch.events) for batch in batches] == [2, 2, 1]
    assert [batch.HasField("cursor") for batch in batches] == [False, False, True]
    assert [batch.synced for batch in batches] == [False, False, True]
    assert subject.take(0) is None


def test_only_the_first_batch_of_a_reset_says_so(log: EventLog) -> None:
    for number in range(3):
        load(log, f"models/{number}")
    subject = watcher(log, Watch(after=Cursor(epoch="old", revision=1)), pace=Pace(batch_events=2))
    assert [(batch.reset, batch.synced) for _ in range(2) if (batch := subject.take(0))] == [
        (True, False),
        (False, True),
    ]


def test_a_replay_has_no_cursor_until_it_has_caught_up(log: EventLog) -> None:
    for number in range(5):
        load(log, f"models/{number}")
    subject = watcher(log, Watch(after=Cursor(epoch="epoch", revision=1)), pace=Pace(batch_events=3))
    first, second = subject.take(0), subject.take(0)
    assert said(first) == ["+models/1", "+models/2", "+models/3"]
    assert first is not None
    assert (first.cursor, first.synced) == (None, False)
    assert second is not None
    assert (said(second), second.cursor, second.synced) == (["+models/4"], log.cursor, True)


def test_batches_are_bounded_by_size_and_a_larger_event_goes_alone(log: EventLog) -> None:
    for uid in ("x" * 400, "x" * 400, "x" * 2000, "x"):
        load(log, "models/a", uid)
    pace = Pace(batch_size=1000)
    replay = watcher(log, Watch(after=Cursor(epoch="epoch", revision=0)), pace=pace)
    sizes = [len(batch.events) for _ in range(3) if (batch := replay.take(0))]
    assert sizes == [2, 1, 1]


def test_the_state_comes_with_the_progress_so_far(log: EventLog) -> None:
    load(log, "models/a")
    load(log, "models/b")
    progress(log, "models/a")
    subject = watcher(log)
    assert said(subject.take(0)) == ["+models/a", "+models/b", "~models/a"]
    assert subject.take(1) is None, "and does not come again"


def test_progress_comes_at_most_once_an_interval_and_only_the_newest(log: EventLog) -> None:
    load(log, "models/a")
    subject = watcher(log, Watch(min_progress_interval=10.0))
    subject.take(0)
    progress(log, "models/a", "1")
    assert subject.take(9.9) is None
    assert subject.lingering
    assert subject.due == 10.0
    progress(log, "models/a", "2")
    batch = subject.take(10.0)
    assert batch is not None
    assert [event.progress.uid for event in decode(batch).events] == ["2"]
    assert batch.cursor == log.cursor
    assert not subject.lingering
    progress(log, "models/a", "3")
    assert subject.take(19.9) is None
    assert said(subject.take(20.0)) == ["~models/a"]


def test_a_transition_goes_at_once_and_clears_progress(log: EventLog) -> None:
    load(log, "models/a")
    load(log, "models/b")
    subject = watcher(log, Watch(min_progress_interval=10.0))
    subject.take(0)
    progress(log, "models/a")
    progress(log, "models/b")
    load(log, "models/a")
    assert said(subject.take(1)) == ["+models/a"]
    assert said(subject.take(10)) == ["~models/b"]


def test_progress_never_overtakes_a_transition(log: EventLog) -> None:
    """A watcher that is behind gets no progress: it may belong to a state that the watcher has not heard of."""
    load(log, "models/a")
    subject = watcher(log, pace=Pace(batch_events=2))
    subject.take(0)
    for uid in ("1", "2", "3"):
        load(log, "models/a", uid)
    progress(log, "models/a")
    assert said(subject.take(5)) == ["+models/a", "+models/a"]
    assert said(subject.take(5)) == ["+models/a", "~models/a"]


def test_much_progress_is_spread_over_batches_without_another_wait(log: EventLog) -> None:
    for number in range(5):
        load(log, f"models/{number}")
    subject = watcher(log, pace=Pace(batch_events=2))
    while subject.take(0):
        pass
    for number in range(5):
        progress(log, f"models/{number}")
    sizes = [len(batch.events) for _ in range(3) if (batch := subject.take(1))]
    assert sizes == [2, 2, 1]
    assert subject.take(1) is None


def test_progress_of_others_does_not_make_a_watcher_linger(log: EventLog) -> None:
    load(log, "models/a")
    load(log, "models/b")
    subject = watcher(log, Watch(wanted=Filter(names=frozenset({"models/a"}))))
    subject.take(0)
    progress(log, "models/b")
    assert subject.take(0.1) is None
    assert not subject.lingering


def test_an_interval_below_the_shortest_is_raised(log: EventLog) -> None:
    load(log, "models/a")
    subject = watcher(log, Watch(min_progress_interval=0.001))
    subject.take(0)
    progress(log, "models/a")
    assert subject.take(0.049) is None
    assert said(subject.take(0.05)) == ["~models/a"]


def test_what_is_filtered_out_moves_the_cursor_and_a_bookmark_says_so(log: EventLog) -> None:
    subject = watcher(log, Watch(wanted=Filter(names=frozenset({"models/a"}))))
    subject.take(0)
    load(log, "models/b")
    assert subject.take(1) is None
    assert subject.due == 30.0
    bookmark = subject.take(30.0)
    assert bookmark is not None
    assert (list(bookmark.events), bookmark.cursor, bookmark.synced) == ([], log.cursor, False)
    assert subject.take(59.9) is None
    assert subject.take(60.0) is not None


def test_bookmarks_are_spread(log: EventLog) -> None:
    asked: list[tuple[float, float]] = []
    Watcher(log, ALL, now=0.0, uniform=lambda low, high: asked.append((low, high)) or low)  # type: ignore[func-returns-value]
    assert asked == [(0.8, 1.2)]


def test_a_watcher_that_the_log_has_left_behind_starts_over(log: EventLog) -> None:
    log = EventLog("epoch", bounds=Bounds(entries=2))
    subject = watcher(log)
    subject.take(0)
    for number in range(3):
        load(log, f"models/{number}")
    assert subject.lag == 3
    batch = subject.take(0)
    assert batch is not None
    assert (said(batch), batch.reset, batch.synced) == (["+models/0", "+models/1", "+models/2"], True, True)
    assert subject.lag == 0


def test_until_done_ends_after_the_batch_that_tells_of_it(log: EventLog) -> None:
    load(log, "models/a")
    subject = watcher(log, Watch(wanted=Filter(names=frozenset({"models/a"})), until_done=True))
    assert not subject.finished
    subject.take(0)
    assert not subject.finished
    load(log, "models/a", done=True)
    assert not subject.finished, "the transition has not been told yet"
    assert said(subject.take(0)) == ["+models/a"]
    assert subject.finished


def test_until_done_of_what_is_not_there_ends_once_synced(log: EventLog) -> None:
    load(log, "models/a", done=True)
    unload(log, "models/a")
    subject = watcher(log, Watch(wanted=Filter(names=frozenset({"models/a"})), until_done=True))
    batch = subject.take(0)
    assert batch is not None
    assert batch.synced
    assert subject.finished


def test_without_until_done_nothing_ends(log: EventLog) -> None:
    load(log, "models/a", done=True)
    subject = watcher(log, Watch(wanted=Filter(names=frozenset({"models/a"}))))
    subject.take(0)
    assert not subject.finished
