"""Whose a process is, while it changes what it is."""

from collections.abc import Mapping

import pytest
from slipway_runner.process import members, proc
from slipway_runner.process.members import FAMILY_TAG, Census, Family
from slipway_runner.process.proc import ProcessId


def test_a_tag_is_read_once_and_an_empty_environment_again_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    process = proc.ProcessId(7, 70)
    living = proc.Stat(id=process, parent=1, group=7, session=7, state="S", threads=1)
    environments: list[Mapping[str, str]] = [{}, {FAMILY_TAG: "mine"}]  # in the midst of execve(2), and after it
    monkeypatch.setattr(proc, "processes", lambda: iter([living]))
    monkeypatch.setattr(proc, "environ", lambda _: environments.pop(0))
    census = Census()
    assert (census.tag(process), census.tag(process)) == ("", "")
    census.look()
    assert census.tag(process) == "mine"
    census.look()
    assert census.tag(process) == "mine"
    assert environments == []


def test_an_empty_tag_is_refused_for_it_would_match_strangers() -> None:
    with pytest.raises(ValueError, match="tag"):
        members.tagged("")
    with pytest.raises(ValueError, match="tag"):
        Family(leader=ProcessId(1, 1), tag="")
