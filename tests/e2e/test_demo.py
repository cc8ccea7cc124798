"""The demo, ended before its time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from slipway_runner.process import members, proc


def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert any("$ slipway load" in line for line in demo.stdout)
        leader = proc.stat(demo.pid)
        assert leader is not None
        started = [one for one in members.descendants(leader.id) if one.pid != demo.pid]
        demo.terminate()
        demo.communicate(timeout=100)
    assert demo.returncode == 128 + signal.SIGTERM
    assert len(started) >= 3  # the Hub, the registry, the runner
    assert [one for one in started if proc.alive(one)] == []
    assert list(tmp_path.iterdir()) == []
