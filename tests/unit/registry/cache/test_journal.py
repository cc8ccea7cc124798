"""Events that outlive the process."""

import uuid
from pathlib import Path

from slipway_registry.cache.journal import Event, Journal
from slipway_registry.jobs.store import Store

BOOT = uuid.uuid4()


def open_store(directory: Path, boot: uuid.UUID = BOOT) -> Store:
    return Store.in_directory(directory, boot)


def event(number: int, *, deleted: bool = False) -> Event:
    return Event(key=f"pins/{number}", payload=b"%d" % number, deleted=deleted, label=f"holder {number}")


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = Journal(store, "pins")
    first = journal.append([event(1), event(2)])
    second = journal.append([event(1, deleted=True)])
    assert [it.revision for it in (*first, *second)] == [1, 2, 3]
    store.close()
    again = Journal(open_store(tmp_path), "pins")
    past = again.read()
    assert again.epoch == journal.epoch
    assert (past.revision, past.events, past.latest) == (3, (*first, *second), (first[1],))


def test_topics_do_not_mix(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    pins, snapshots = Journal(store, "pins"), Journal(store, "snapshots")
    pins.append([event(1)])
    assert snapshots.append([event(1, deleted=True)])[0].revision == 1
    assert len(pins.read().latest) == 1
    assert snapshots.read().latest == ()
    assert pins.epoch != snapshots.epoch


def test_old_events_go_and_the_state_stays(tmp_path: Path) -> None:
    journal = Journal(open_store(tmp_path), "pins", keep=10)
    journal.append([event(1), event(2), event(2, deleted=True)])
    for _ in range(5):
        journal.append([event(3)] * 100)
    past = journal.read()
    assert past.revision == 503
    assert [it.revision for it in past.events] == list(range(past.events[0].revision, 504))
    assert 10 <= len(past.events) <= 10 + 500
    assert past.events[0].revision > 3
    assert [(it.key, it.revision) for it in past.latest] == [("pins/1", 1), ("pins/3", 503)]


def test_a_crash_of_the_host_begins_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    journal = Journal(store, "pins")
    journal.append([event(1)])
    store._engine.dispose()  # not closed: the host went down
    after = Journal(open_store(tmp_path, uuid.uuid4()), "pins")
    past = after.read()
    assert after.epoch != journal.epoch
    assert (past.revision, past.events, past.latest) == (0, (), ())
