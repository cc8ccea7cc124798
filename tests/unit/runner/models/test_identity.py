"""The runner's tag and the name of its pins: whole, the same with each start, and never empty."""

import os
import uuid
from pathlib import Path

import pytest
from slipway_runner.models.identity import read_holder, read_instance
from slipway_service.state_dir import StartError


def test_they_are_the_same_with_each_start(tmp_path: Path) -> None:
    instance, holder = read_instance(tmp_path), read_holder(tmp_path)
    assert str(uuid.UUID(instance)) == instance
    assert holder.startswith("runner/")
    assert holder.endswith(instance[:8])
    assert (read_instance(tmp_path), read_holder(tmp_path)) == (instance, holder)
    assert {path.name for path in tmp_path.iterdir()} == {"instance", "holder"}


@pytest.mark.parametrize("text", ["", "\n", "\0" * 36, "../..", "\udcff"])
def test_a_tag_that_is_none_is_made_anew(tmp_path: Path, text: str) -> None:
    """As a host leaves it that lost its power: an empty one would be shared by all that have one."""
    (tmp_path / "instance").write_bytes(os.fsencode(text))
    instance = read_instance(tmp_path)
    assert str(uuid.UUID(instance)) == instance
    assert read_instance(tmp_path) == instance


@pytest.mark.parametrize("text", ["", "\0" * 20, "runner/a\nrunner/b", "\udcff"])
def test_a_holder_that_is_none_is_made_anew(tmp_path: Path, text: str) -> None:
    before = read_holder(tmp_path)
    (tmp_path / "holder").write_bytes(os.fsencode(text))
    assert read_holder(tmp_path) == before


def test_a_kill_while_it_is_written_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            read_instance(tmp_path)
    assert not (tmp_path / "instance").exists()
    assert read_instance(tmp_path)


def test_a_disk_that_refuses_it_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "instance").mkdir()
    with pytest.raises(StartError, match="instance: Is a directory"):
        read_instance(tmp_path)
