"""Opening somebody else's files, and telling their names."""

import os
from pathlib import Path

import pytest
from slipway_registry.cache.plain import reads, shown


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open(reads(tmp_path / "file"), "rb") as file:
        assert file.read() == b"content"
        assert not os.get_inheritable(file.fileno())


@pytest.mark.parametrize("follow", [False, True])
def test_nothing_else_is(tmp_path: Path, follow: bool) -> None:
    os.mkfifo(tmp_path / "fifo")  # one that is opened as a file is waits for ever
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "directory"):
        with pytest.raises(OSError, match="no regular file"):
            reads(tmp_path / name, follow=follow)
    with pytest.raises(FileNotFoundError):
        reads(tmp_path / "missing", follow=follow)


def test_a_link_is_followed_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    os.close(reads(tmp_path / "link", follow=True))
    with pytest.raises(OSError, match="symbolic links"):
        reads(tmp_path / "link")


def test_names_are_shown_as_text() -> None:
    assert shown("größe") == "größe"
    assert shown(os.fsdecode(b"a\xff")) == r"a\xff"
