import json
import os
from pathlib import Path

import pytest
from slipway_runner.process.journal import Entry, Journal, JournalInUse, Unreadable


def test_entries_are_replaced_listed_and_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write("b", {"n": 1})
    journal.write("a", {"n": 2})
    journal.write("b", {"n": 3})
    assert list(journal.read_all()) == [Entry("a", {"n": 2}), Entry("b", {"n": 3})]
    journal.remove("a")
    journal.remove("a")
    assert list(journal.read_all()) == [Entry("b", {"n": 3})]
    journal.close()


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write("a", {})
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    assert (tmp_path / "journal" / "a.json").stat().st_mode & 0o077 == 0
    journal.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"n": 1}', '{"version": 999, "n": 1}'])
def test_what_cannot_be_used_is_told_and_can_be_set_aside(tmp_path: Path, content: str) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "a.json").write_text(content)
    (found,) = journal.read_all()
    assert isinstance(found, Unreadable)
    assert found.name == "a"
    assert found.why
    journal.set_aside("a")
    assert list(journal.read_all()) == []
    assert (tmp_path / "a.unusable").read_text() == content
    journal.close()


def test_a_write_that_was_cut_off_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})

    def fail(_: int) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            journal.write("a", {"n": 2})
    assert list(journal.read_all()) == [Entry("a", {"n": 1})]
    journal.write("a", {"n": 3})
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 3
    journal.close()


def test_one_runner_at_a_time(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    with pytest.raises(JournalInUse):
        Journal(tmp_path)
    first.close()
    Journal(tmp_path).close()
