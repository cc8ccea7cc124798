"""What watchers of snapshots and pins are told, over restarts and full disks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from slipway.registry.v1 import snapshot_service_pb2 as pb
from slipway_registry.cache.index import Change
from slipway_registry.cache.journal import Event, Journal, Recorded
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.snapshot import Record, Snapshot
from slipway_registry.jobs.store import Store
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_service.eventlog import EventLog, Filter
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId

pytestmark = pytest.mark.anyio

PIN = Pin(
    id="p1",
    holder="h",
    claim="c",
    repo=RepoId("org/m"),
    commit=Commit("a" * 40),
    expire_time=None,
    create_time=1.0,
)


def snapshot(name: str = "org/m", uid: str = "u1", **fields: object) -> Snapshot:
    made = Snapshot(
        repo=RepoId(name),
        commit=Commit("a" * 40),
        record=Record(uid=uid, create_time=1.0, use_time=1.0),
        refs=(),
        files=(),
        variants=(),
        listed=True,
        present_bytes=0,
        exclusive_bytes=0,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def told(log: EventLog, revision: int = 0) -> list[str]:
    """Each event after that revision, in a word."""
    batch = pb.WatchSnapshotsResponse.FromString(b"".join(entry.event for entry in log.after(revision)))
    return [
        f"{it.snapshot.repo_id} {it.snapshot.uid}" if it.HasField("snapshot") else f"gone {it.deleted.uid}"
        for it in batch.events
    ]


async def test_a_watcher_that_was_away_misses_nothing(tmp_path: Path) -> None:
    store = Store.in_directory(tmp_path)
    log = SnapshotLog(store)
    log.begin([], [])
    kept, changed, gone, replaced = (snapshot(f"org/{name}", name) for name in ("k", "c", "g", "r"))
    for it in (kept, changed, gone, replaced):
        log.snapshot(Change(before=None, now=it))
    await log.settle()
    seen = log.snapshots.cursor
    log.snapshot(Change(before=kept, now=replace(kept, refs=("main",))))
    await log.settle()
    store.close()

    log = SnapshotLog(Store.in_directory(tmp_path))
    assert log.snapshots.epoch == seen.epoch
    now = [replace(kept, refs=("main",)), replace(changed, refs=("v1",)), snapshot("org/r", "new")]
    for it in now:
        log.snapshot(Change(before=None, now=it))
    log.begin(now, [])
    await log.settle()
    assert told(log.snapshots, seen.revision) == ["org/k k", "org/c c", "gone r", "org/r new", "gone g"]
    assert [it.uid for it in log.listed(None, "")] == ["c", "k", "new"]
    assert {entry.key for entry in log.snapshots.state(Filter())} == {it.name for it in now}


async def test_pins_that_ended_while_nobody_looked_are_told_to_their_holder(tmp_path: Path) -> None:
    store = Store.in_directory(tmp_path)
    log = SnapshotLog(store)
    log.begin([], [])
    asked, other = replace(PIN, release_requested=True), replace(PIN, id="p2", holder="x")
    for pin in (PIN, other, asked):
        log.pin(pin)
    await log.settle()
    seen = log.pins.revision
    store.close()

    log = SnapshotLog(Store.in_directory(tmp_path))
    log.begin([], [PIN])
    await log.settle()
    entries = log.pins.after(seen)
    assert [(it.key, it.deleted, it.label) for it in entries] == [("pins/p2", True, "x"), ("pins/p1", False, "h")]
    (event,) = pb.WatchPinsResponse.FromString(entries[1].event).events
    assert not event.pin.release_requested  # who asked is gone with the process


async def test_what_has_not_changed_is_not_told_again(tmp_path: Path) -> None:
    log = SnapshotLog(Store.in_directory(tmp_path))
    for _ in range(2):
        log.snapshot(Change(before=None, now=snapshot()))
        log.pin(PIN)
        await log.settle()
    log.pin(replace(PIN, id="never told"), ended=True)
    await log.settle()
    assert (log.snapshots.revision, log.pins.revision) == (1, 1)


async def test_events_wait_for_a_database_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SnapshotLog(Store.in_directory(tmp_path))

    def full(_: Journal, __: Sequence[Event]) -> list[Recorded]:
        raise Fault(Reason.DISK_FULL, "full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        log.snapshot(Change(before=None, now=snapshot()))
        await log.settle()
        assert log.snapshots.revision == 0
    log.snapshot(Change(before=snapshot(), now=None))
    await log.settle()
    assert told(log.snapshots) == ["org/m u1", "gone u1"]
