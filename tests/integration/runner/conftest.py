"""No backend outlives its test, even one that failed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_runner.process import members, pidfd


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    for instance in tmp_path.rglob("instance"):
        for family in members.tagged(instance.read_text().strip()).values():
            for process in family:
                pidfd.send(process, signal.SIGKILL)
