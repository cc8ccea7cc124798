"""What stands in the way of a start is said in one line, with what to do, and never as a defect."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.stack import BIN, WAIT_SECONDS


def a_file_for_a_cache(directory: Path) -> None:
    (directory / "hf").write_text("no directory")


def a_spoilt_database(directory: Path) -> None:
    (directory / "state").mkdir()
    (directory / "state/registry.sqlite3").write_bytes(b"no database" * 100)


def a_file_for_a_state_directory(directory: Path) -> None:
    (directory / "state").write_text("no directory")


def start(directory: Path, preexec_fn: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    """A registry that has its state and its cache below the directory, until it ends."""
    return subprocess.run(
        [
            BIN / "slipway-registry",
            "serve",
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
            f"--state-dir={directory / 'state'}",
        ],
        env={**os.environ, "HF_HOME": str(directory / "hf")},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        preexec_fn=preexec_fn,
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_file_for_a_cache, "Not a directory; HF_HOME and --state-dir say where to work"),
        (a_spoilt_database, "file is not a database"),
        (a_file_for_a_state_directory, "File exists"),
    ],
)
def test_the_registry_says_why_it_cannot_start(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tmp_path)
    ended = start(tmp_path)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def no_file_grows() -> None:
    """Beyond 4 KiB writes fail, as they do on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_state_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    ended = start(tmp_path, preexec_fn=no_file_grows)
    assert ended.returncode == 1
    assert f"The registry's database cannot be written: disk I/O error. It is in {tmp_path / 'state'}" in ended.stderr
    assert "Traceback" not in ended.stderr
