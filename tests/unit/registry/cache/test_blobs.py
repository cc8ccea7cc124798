import errno
import os
import uuid
from pathlib import Path

import pytest
from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.layout import Modes
from slipway_registry.transfer.partial import DATA, Partial
from slipway_service.weights.names import BlobId, RepoId

REPO, OTHER = RepoId("org/model"), RepoId("org/other")
BLOB = BlobId("1" * 64)


@pytest.fixture
def shelf(tmp_path: Path) -> BlobShelf:
    (tmp_path / "hub").mkdir()
    made = BlobShelf(tmp_path / "hub", Modes(file=0o644, directory=0o755))
    made.prepare(REPO)
    return made


def stage(shelf: BlobShelf, data: bytes = b"data") -> None:
    with Partial.open(shelf.partial(REPO, BLOB), len(data), boot=uuid.UUID(int=1)) as partial:
        partial.write(0, memoryview(data))
        partial.sync(0o644)


def test_a_partial_gets_its_name(shelf: BlobShelf) -> None:
    stage(shelf)
    path = shelf.place(REPO, BLOB)
    assert path == shelf.path(REPO, BLOB)
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == 0o644
    assert not shelf.partial(REPO, BLOB).exists()


def test_a_link_into_the_shared_store_is_replaced_and_its_target_kept(shelf: BlobShelf, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_bytes(b"wrong")
    shelf.path(REPO, BLOB).symlink_to(shared)
    stage(shelf)
    assert not shelf.place(REPO, BLOB).is_symlink()
    assert shared.read_bytes() == b"wrong"


def test_a_partial_that_was_taken_away_is_missed(shelf: BlobShelf) -> None:
    stage(shelf)
    (shelf.partial(REPO, BLOB) / DATA).unlink()
    with pytest.raises(FileNotFoundError):
        shelf.place(REPO, BLOB)


def test_another_repository_shares_the_bytes(shelf: BlobShelf) -> None:
    stage(shelf)
    source = shelf.place(REPO, BLOB)
    assert shelf.adopt(OTHER, BLOB, source)
    assert shelf.adopt(OTHER, BLOB, source)
    assert shelf.path(OTHER, BLOB).samefile(source)
    assert list((shelf.partial(OTHER, BLOB).parent).iterdir()) == []


def test_a_link_is_not_linked_but_what_it_leads_to(shelf: BlobShelf, tmp_path: Path) -> None:
    shared = tmp_path / "hub" / "shared"
    shared.write_bytes(b"data")
    shelf.path(REPO, BLOB).symlink_to(shared)
    assert shelf.adopt(OTHER, BLOB, shelf.path(REPO, BLOB))
    assert not shelf.path(OTHER, BLOB).is_symlink()
    assert shelf.path(OTHER, BLOB).samefile(shared)


def test_where_links_do_not_work_it_says_so(shelf: BlobShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    stage(shelf)
    assert not shelf.adopt(OTHER, BLOB, shelf.place(REPO, BLOB))


def test_discarding_twice_is_no_error(shelf: BlobShelf) -> None:
    stage(shelf)
    shelf.discard(REPO, BLOB)
    shelf.discard(REPO, BLOB)
    assert not shelf.partial(REPO, BLOB).exists()
