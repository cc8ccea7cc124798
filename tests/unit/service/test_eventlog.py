"""The log by itself."""

import pytest
from slipway_service.eventlog import Bounds, Cursor, Entry, EventLog, Filter, Start

EVERYTHING = Filter()


def entry(revision: int, key: str = "models/a", event: bytes = b"x") -> Entry:
    return Entry(revision=revision, key=key, event=event)


def test_transitions_have_consecutive_revisions_and_make_up_the_state() -> None:
    log = EventLog("epoch")
    log.append("models/a", b"a1")
    log.append("models/b", b"b1")
    log.append("models/a", b"a2", done=True)
    log.delete("models/b", b"-b")
    assert log.cursor == Cursor(epoch="epoch", revision=4)
    assert [(found.revision, found.event, found.deleted) for found in log.after(1)] == [
        (2, b"b1", False),
        (3, b"a2", False),
        (4, b"-b", True),
    ]
    assert [found.event for found in log.state(EVERYTHING)] == [b"a2"]


def test_only_what_is_there_can_be_deleted() -> None:
    with pytest.raises(KeyError):
        EventLog("epoch").delete("models/a", b"")


def test_progress_is_the_newest_of_each_and_ends_with_the_next_transition() -> None:
    log = EventLog("epoch")
    log.append("models/a", b"a")
    log.append("models/b", b"b")
    for event in (b"a 1", b"a 2"):
        log.progress("models/a", event)
    log.progress("models/b", b"b 1")
    log.progress("models/a", b"a 3")
    assert [found.event for found in log.progress_after(0, EVERYTHING)] == [b"b 1", b"a 3"]
    assert [found.event for found in log.progress_after(3, EVERYTHING)] == [b"a 3"]
    log.append("models/a", b"a'")
    assert [found.event for found in log.progress_after(0, EVERYTHING)] == [b"b 1"]
    assert log.revision == 3, "progress has no revisions"


def test_progress_that_comes_after_the_deletion_is_dropped() -> None:
    log = EventLog("epoch")
    log.append("models/a", b"a")
    log.delete("models/a", b"-a")
    log.progress("models/a", b"late")
    assert log.progress_after(0, EVERYTHING) == []


def test_the_log_is_bounded_by_count_and_by_size() -> None:
    by_count = EventLog("epoch", bounds=Bounds(entries=3))
    by_size = EventLog("epoch", bounds=Bounds(size=30))
    for _ in range(10):
        by_count.append("models/a", b"x")
        by_size.append("models/a", b"x" * 10)
    for log in (by_count, by_size):
        assert log.compacted == 7
        assert [found.revision for found in log.after(7)] == [8, 9, 10]
    by_size.append("models/a", b"x" * 100)
    assert (by_size.compacted, by_size.after(by_size.revision)) == (11, [])
    assert len(by_size.state(EVERYTHING)) == 1, "compaction forgets history, never state"


@pytest.mark.parametrize(
    ("cursor", "start"),
    [
        (None, Start.STATE),
        (Cursor(epoch="epoch", revision=7), Start.REPLAY),
        (Cursor(epoch="epoch", revision=10), Start.REPLAY),
        (Cursor(epoch="epoch", revision=6), Start.RESET),
        (Cursor(epoch="epoch", revision=11), Start.RESET),
        (Cursor(epoch="other", revision=10), Start.RESET),
    ],
)
def test_where_a_watch_begins(cursor: Cursor | None, start: Start) -> None:
    log = EventLog("epoch", bounds=Bounds(entries=3))
    for _ in range(10):
        log.append("models/a", b"x")
    assert log.start(cursor) is start


def test_a_durable_log_goes_on_where_it_was() -> None:
    log = EventLog("epoch", revision=5, state=[entry(5), entry(2, "models/b")], entries=[entry(4), entry(5)])
    assert (log.compacted, len(log.state(EVERYTHING))) == (3, 2)
    log.apply(entry(6))
    assert [found.revision for found in log.after(3)] == [4, 5, 6]


def test_a_durable_log_drops_what_exceeds_its_bounds() -> None:
    log = EventLog("epoch", revision=3, entries=[entry(1), entry(2), entry(3)], bounds=Bounds(entries=2))
    assert log.compacted == 1


@pytest.mark.parametrize("revisions", [[1, 3], [2, 3], [3, 4, 6]])
def test_a_history_with_gaps_is_refused(revisions: list[int]) -> None:
    with pytest.raises(ValueError, match="without gaps"):
        EventLog("epoch", revision=4, entries=[entry(revision) for revision in revisions])


@pytest.mark.parametrize("revision", [1, 3])
def test_a_revision_out_of_order_is_refused(revision: int) -> None:
    log = EventLog("epoch", revision=1, entries=[entry(1)])
    with pytest.raises(ValueError, match="cannot follow"):
        log.apply(entry(revision))


def test_filters_select_by_collection_name_and_label() -> None:
    log = EventLog("epoch")
    log.append("pins/1", b"1", label="runner-a")
    log.append("pins/2", b"2", label="runner-b")
    log.append("models/a", b"a")

    def seen(wanted: Filter) -> list[str]:
        return [found.key for found in log.state(wanted)]

    assert seen(Filter(collection="pins/")) == ["pins/1", "pins/2"]
    assert seen(Filter(collection="pins/", label="runner-b")) == ["pins/2"]
    assert seen(Filter(names=frozenset({"models/a", "pins/2"}))) == ["pins/2", "models/a"]
    assert seen(Filter(collection="models/", names=frozenset({"pins/2"}))) == []


def test_a_deletion_keeps_the_label_that_its_watchers_filter_by() -> None:
    log = EventLog("epoch")
    log.append("pins/1", b"1", label="runner-a")
    assert Filter(label="runner-a")(log.delete("pins/1", b"-1"))


def test_listeners_hear_of_every_change_and_its_kind() -> None:
    log = EventLog("epoch")
    heard: list[bool] = []
    log.listen(heard.append)
    log.append("models/a", b"")
    log.progress("models/a", b"")
    log.progress("models/absent", b"")
    log.delete("models/a", b"")
    assert heard == [True, False, True]


def test_done_is_resting_or_absent() -> None:
    log = EventLog("epoch")
    log.append("models/a", b"", done=False)
    log.append("models/b", b"", done=True)
    assert log.all_done(["models/b", "models/absent"])
    assert not log.all_done(["models/a", "models/b"])
