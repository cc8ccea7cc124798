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
    journal.sync("a")
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


def test_what_was_written_is_there_though_the_disk_does_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    journal.sync("a")

    def fail(_: int) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        journal.write("a", {"n": 2})
        with pytest.raises(OSError, match="the disk is gone"):
            journal.sync("a")
    assert list(journal.read_all()) == [Entry("a", {"n": 2})]
    journal.sync("a")
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 2
    assert list(journal.read_all()) == [Entry("a", {"n": 2})]
    journal.close()


@pytest.mark.parametrize("content", ["", '{"version": 1, "n"'])
def test_of_a_write_that_the_disk_lost_the_entry_before_is_left(tmp_path: Path, content: str) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    journal.sync("a")
    (tmp_path / "a.9.fresh").write_text(content)
    (tmp_path / "a.tmp").write_text(content)
    assert list(journal.read_all()) == [Entry("a", {"n": 1})]
    journal.close()


def test_an_entry_of_a_newer_runner_is_not_passed_over_for_an_older_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    journal.sync("a")
    (tmp_path / "a.9.fresh").write_text('{"version": 999}')
    (found,) = journal.read_all()
    assert isinstance(found, Unreadable)
    journal.set_aside("a")
    assert list(journal.read_all()) == []
    journal.close()


def test_what_is_written_during_a_sync_is_newer_than_what_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    fsync = os.fsync

    def write_meanwhile(descriptor: int) -> None:
        monkeypatch.undo()
        fsync(descriptor)
        journal.write("a", {"n": 2})

    monkeypatch.setattr(os, "fsync", write_meanwhile)
    journal.sync("a")
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 1
    assert list(journal.read_all()) == [Entry("a", {"n": 2})]
    journal.sync("a")
    assert json.loads((tmp_path / "a.json").read_text())["n"] == 2
    journal.remove("a")
    journal.sync("a")
    assert list(journal.read_all()) == []
    journal.close()


def test_what_is_removed_during_a_sync_stays_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    fsync = os.fsync

    def remove_meanwhile(descriptor: int) -> None:
        monkeypatch.undo()
        fsync(descriptor)
        journal.remove("a")

    monkeypatch.setattr(os, "fsync", remove_meanwhile)
    journal.sync("a")
    assert list(journal.read_all()) == []
    assert not (tmp_path / "a.json").exists()
    journal.close()


def test_many_writes_leave_one_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(12):
        journal.write("a", {"n": number})
    assert [path.name for path in tmp_path.glob("a*")] == ["a.12.fresh"]
    journal.close()
    again = Journal(tmp_path)
    again.write("a", {"n": 12})
    assert list(again.read_all()) == [Entry("a", {"n": 12})]
    again.close()


def test_one_runner_at_a_time(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    with pytest.raises(JournalInUse):
        Journal(tmp_path)
    first.close()
    Journal(tmp_path).close()


@pytest.mark.parametrize("stray", ["copy.of.fresh", "copy.fresh", "copy.of.json", "a.b.fresh", "a.-1.fresh", ".fresh"])
def test_what_is_named_like_no_entry_is_none(tmp_path: Path, stray: str) -> None:
    journal = Journal(tmp_path)
    journal.write("a", {"n": 1})
    (tmp_path / stray).write_text("{}")
    assert list(journal.read_all()) == [Entry("a", {"n": 1})]
    journal.write("a", {"n": 2})
    journal.sync("a")
    assert list(journal.read_all()) == [Entry("a", {"n": 2})]
    journal.remove("a")
    assert list(journal.read_all()) == []
    assert (tmp_path / stray).exists()
    journal.close()
