import resource
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from slipway_registry.jobs.records import State
from slipway_registry.jobs.schema import metadata
from slipway_registry.jobs.store import Cursor, Store, VerifiedBlob
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import RepoId
from sqlalchemy import create_engine, text

from tests.unit.registry.jobs.samples import LISTING, NOW, REPO, download

BOOT = uuid.UUID(int=1)
PATHS = ["config.json", "model.gguf"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = at(tmp_path)
    yield opened
    opened.close()


def at(directory: Path, boot: uuid.UUID = BOOT) -> Store:
    return Store(f"sqlite:///{directory}/registry.sqlite3", boot=boot)


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    at(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path}/registry.sqlite3")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_block_checksums_of_another_kind_are_forgotten(tmp_path: Path) -> None:
    blob = VerifiedBlob(repo=REPO, etag="a" * 64, size=3, inode=1, mtime_ns=2, block_crcs=b"crc3")
    earlier = at(tmp_path)
    earlier.set_verified(blob, at=NOW.timestamp())
    earlier.close()
    engine = create_engine(f"sqlite:///{tmp_path}/registry.sqlite3")
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '0004'"))
    engine.dispose()
    later = at(tmp_path)
    assert later.verified(blob.etag) == [replace(blob, block_crcs=None)]
    later.close()


def test_a_download_is_found_again_with_its_files(store: Store) -> None:
    recorded, new = store.create(download(), PATHS, LISTING)
    assert (new, recorded.log_revision) == (True, 1)
    assert store.get(recorded.id) == recorded
    assert store.files(recorded.id) == (tuple(PATHS), LISTING)
    assert store.live() == [recorded]


def test_an_unknown_download_is_not_found(store: Store) -> None:
    with pytest.raises(Fault) as caught:
        store.get("nope")
    assert (caught.value.reason, caught.value.resource) == (Reason.DOWNLOAD_NOT_FOUND, "downloads/nope")


def test_one_live_download_per_key(store: Store) -> None:
    first, _ = store.create(download(), PATHS, LISTING)
    again, new = store.create(download(id="e" * 32), PATHS, LISTING)
    assert (again, new) == (first, False)
    assert store.head().revision == 1
    store.save(replace(first, state=State.FAILED))
    _, new = store.create(download(id="e" * 32), PATHS, LISTING)
    assert new


def test_every_change_is_an_event_in_order(store: Store) -> None:
    first, _ = store.create(download(), PATHS, LISTING)
    second = store.save(replace(first, state=State.RUNNING))
    third = store.save(replace(second, state=State.FAILED, end_time=NOW))
    entries = store.replay(0)
    assert entries is not None
    assert [entry.revision for entry in entries] == [1, 2, 3]
    assert [entry.download for entry in entries] == [first, second, third]
    assert store.head() == Cursor(store.epoch, 3)
    assert store.replay(3) == []
    assert store.replay(4) is None


def test_a_compacted_past_is_said_to_be_gone(store: Store) -> None:
    recorded, _ = store.create(download(), PATHS, LISTING)
    for _ in range(9):
        recorded = store.save(recorded)
    store.compact(keep=4)
    assert store.replay(5) is None
    entries = store.replay(6)
    assert entries is not None
    assert [entry.revision for entry in entries] == [7, 8, 9, 10]


def test_finished_downloads_are_forgotten_with_an_event(store: Store) -> None:
    old, _ = store.create(download(state=State.SUCCEEDED, end_time=NOW), PATHS, LISTING)
    later = NOW + timedelta(days=9)
    kept, _ = store.create(download(id="e" * 32, state=State.SUCCEEDED, end_time=later), PATHS, LISTING)
    running, _ = store.create(download(id="f" * 32), PATHS, LISTING)
    entries = store.expire((NOW + timedelta(days=8)).timestamp())
    assert [(entry.uid, entry.download, entry.revision) for entry in entries] == [(old.id, None, 4)]
    assert {item.id for item in store.page(limit=9)} == {kept.id, running.id}
    assert store.files(kept.id)[1] == LISTING
    store.expire((NOW + timedelta(days=10)).timestamp())
    assert store.files(running.id)[1] == LISTING


def test_pages_are_newest_first(store: Store) -> None:
    for number in range(5):
        made = download(id=f"{number:032x}", key=str(number), create_time=NOW + timedelta(seconds=number // 2))
        store.create(made, PATHS, LISTING)
    first = store.page(limit=2)
    rest = store.page(limit=9, after=first[-1].id)
    assert [int(item.id, 16) for item in first + rest] == [4, 3, 2, 1, 0]
    assert store.page(limit=9, repo=RepoId("other/model")) == []
    assert len(store.page(limit=9, repo=REPO)) == 5


def test_verified_blobs_are_remembered(store: Store) -> None:
    blob = VerifiedBlob(repo=REPO, etag="2" * 64, size=1 << 33, inode=5, mtime_ns=6, block_crcs=b"abcd")
    store.set_verified(blob, at=1.0)
    changed = replace(blob, inode=7, block_crcs=None)
    store.set_verified(changed, at=2.0)
    assert store.verified("2" * 64) == [changed]
    assert store.verified("3" * 64) == []


def test_a_reopened_store_goes_on(tmp_path: Path) -> None:
    first = at(tmp_path)
    recorded, _ = first.create(download(), PATHS, LISTING)
    first.close()
    second = at(tmp_path, uuid.UUID(int=2))
    assert (second.epoch, second.registry_id) == (first.epoch, first.registry_id)
    assert second.live() == [recorded]
    assert second.save(recorded).log_revision == 2
    second.close()


@pytest.mark.parametrize(("boot", "same"), [(1, True), (2, False)], ids=["killed", "power lost"])
def test_only_a_power_loss_begins_a_new_epoch(tmp_path: Path, boot: int, same: bool) -> None:
    first = at(tmp_path)
    first.create(download(), PATHS, LISTING)
    first._engine.dispose()  # as a killed process leaves it
    second = at(tmp_path, uuid.UUID(int=boot))
    assert (second.epoch == first.epoch) is same
    second.close()


def test_a_killed_process_loses_no_transition(tmp_path: Path) -> None:
    first = at(tmp_path)
    recorded, _ = first.create(download(), PATHS, LISTING)
    first._engine.dispose()
    assert (tmp_path / "registry.sqlite3-wal").exists() or recorded
    second = at(tmp_path)
    assert second.replay(0) is not None
    assert second.live() == [recorded]
    second.close()


def test_threads_get_distinct_revisions(store: Store) -> None:
    recorded, _ = store.create(download(), PATHS, LISTING)
    revisions: list[int] = []

    def save() -> None:
        revisions.extend(store.save(recorded).log_revision for _ in range(10))

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(revisions) == list(range(2, 42))


def test_a_checkpoint_empties_the_log_file(store: Store, tmp_path: Path) -> None:
    store.create(download(), PATHS, LISTING)
    store.checkpoint()
    assert (tmp_path / "registry.sqlite3-wal").stat().st_size == 0


def test_a_checkpoint_that_fails_is_a_fault_and_loses_nothing(tmp_path: Path) -> None:
    store = at(tmp_path)
    recorded, _ = store.create(download(), PATHS, LISTING)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # no file may grow, as on a full disk
    try:
        with pytest.raises(Fault) as caught:
            store.checkpoint()
        store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.reason in (Reason.DISK_FULL, Reason.DISK_FAULT)
    again = at(tmp_path)
    assert again.live() == [recorded]
    again.close()


def test_a_full_disk_is_a_fault_and_changes_nothing(store: Store) -> None:
    recorded, _ = store.create(download(), PATHS, LISTING)
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(Fault) as caught:
        store.save(replace(recorded, selection={"patterns": ["x" * 10_000]}))
    assert caught.value.reason is Reason.DISK_FULL
    (disk,) = caught.value.preconditions
    assert (disk.type, disk.subject.endswith("registry.sqlite3")) == ("DISK", True)
    assert store.head().revision == 1
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert store.save(recorded).log_revision == 2
