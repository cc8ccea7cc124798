"""The commands of a build: what is shown, what a failure says, and that none outlives the installer."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.backends.steps import Steps
from deploy.backends.store import InstallError
from tests.unit.deploy.fakes import REPOSITORY, never


def test_a_step_that_fails_says_what_it_said_and_what_to_do(tmp_path: Path) -> None:
    steps = Steps("fake", tmp_path / "log", never)
    with pytest.raises(InstallError) as error:
        steps.run("sh", "-c", "seq 100; echo broken >&2; exit 3", advice="Buy a compiler.")
    said = str(error.value)
    assert "broken" in said
    assert "\n50\n" not in said, "only the end of it"
    assert str(tmp_path / "log") in said
    assert said.endswith("Buy a compiler.")
    assert "\n50\n" in (tmp_path / "log").read_text()


def test_progress_names_the_backend_and_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([10.0, 141.6])
    Steps("llama-server", tmp_path / "log", never, clock=lambda: next(times)).note("compiling")
    assert capsys.readouterr().out == "llama-server  132 s  compiling\n"


def test_a_step_does_not_see_the_callers_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "kept")
    Steps("fake", tmp_path / "log", never).run("env")
    log = (tmp_path / "log").read_text()
    assert "PIP_USER" not in log
    assert "PYTHONPATH" not in log
    assert "PIP_EXTRA_INDEX_URL=kept" in log


ENDED = """
import signal, sys
from pathlib import Path
from deploy.backends.steps import Steps
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
steps = Steps("fake", Path(sys.argv[1]) / "log", print)
steps.run("sh", "-c", 'sleep 1000 & echo $! > "$0"; wait', sys.argv[1] + "/pid")
"""

STARTING = """
import os, signal, subprocess, sys
from pathlib import Path
from deploy.backends.steps import Steps
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
start = subprocess.Popen
def ended_while_starting(*args, **options):
    child = start(*args, **options)
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    return child
subprocess.Popen = ended_while_starting
Steps("fake", Path(sys.argv[1]) / "log", print).run("sleep", "1000")
"""


def test_ending_the_installer_ends_what_it_started(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    with subprocess.Popen([sys.executable, "-c", ENDED, tmp_path], cwd=REPOSITORY) as installer:
        grandchild = os.pidfd_open(int((tmp_path / "pid").read_text()))
        try:
            installer.terminate()
            assert installer.wait(30) == 128 + signal.SIGTERM
            assert select.select([grandchild], [], [], 30)[0], "it ended: its pidfd is readable"
        finally:
            os.close(grandchild)


def test_a_step_that_is_just_starting_ends_too(tmp_path: Path) -> None:
    argv: list[str | Path] = [sys.executable, "-c", STARTING, tmp_path]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), signal.SIGKILL)
