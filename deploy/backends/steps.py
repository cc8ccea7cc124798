"""Runs the commands of a build: a line of progress before each, their output in a log, a way out when one fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from deploy.backends.store import InstallError

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PINS = Path(__file__).parent / "pins"

TAIL_LINES = 15  # of a failed command's output: enough for a compiler's or pip's last error
KILL_AFTER_S = 5.0  # ninja and pip end their children on SIGTERM well within this

# What would make a build depend on the caller's shell: pip's --user, --target and --constraint, other packages.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_CONSTRAINT", "VIRTUAL_ENV")

# Not the one that came with Python: an older pip fetches whole wheels even for `install --dry-run`.
_PIP = PINS / "pip.txt"

_ENSUREPIP_MISSING = "python3 has no ensurepip; on Debian or Ubuntu: sudo apt-get install python3-venv"


Consent = Callable[[str], None]
"""Shows a question about a costly step and returns if the answer is yes, else raises InstallError."""


def say(line: str) -> None:
    """Print one line of progress at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Steps:
    """The steps of one build."""

    def __init__(self, name: str, log: Path, confirm: Consent, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self.confirm = confirm
        self.log = log
        self._clock = clock
        self._started = clock()
        log.write_bytes(b"")

    @property
    def seconds(self) -> float:
        """How long the build has taken so far."""
        return self._clock() - self._started

    def note(self, text: str) -> None:
        """Print a line with the backend's name and the time so far."""
        say(f"{self._name:<13}{self.seconds:4.0f} s  {text}")

    def run(self, *argv: str | Path, advice: str = "") -> None:
        """Run a command to its end; if we are ended, so is everything it started.

        Raises InstallError with the end of its output, and `advice`, if it fails.
        """
        env = {k: v for k, v in os.environ.items() if k not in _FOREIGN}
        env.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONNOUSERSITE="1")
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n")
            log.flush()
            status = _until_its_end(argv, env, log)
        if status != 0:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            said = f"{tail}\n\n{Path(argv[0]).name} failed; all of its output: {self.log}\n{advice}"
            raise InstallError(said.rstrip())

    def venv(self, at: Path) -> Path:
        """Make a virtual environment of the running Python, with the pinned pip, and return its interpreter."""
        self.run(sys.executable, "-m", "venv", "--clear", at, advice=_ENSUREPIP_MISSING)
        python = at / "bin" / "python"
        self.pip_install(python, _PIP)
        return python

    def pip_install(self, python: Path, pins: Path) -> None:
        """Install what is listed in `pins`, each wheel checked against its sha256, and nothing else."""
        self.run(
            *(python, "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", pins),
            advice="If no wheel fits this machine or Python, run this with a python3.11 on Linux x86_64.",
        )


def _until_its_end(argv: Sequence[str | Path], env: dict[str, str], output: TextIO) -> int:
    # An ending that came while Popen is at work would leave a child that nobody knows of: it is held back till then.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        child = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=_let_through,  # noqa: PLW1509 - no other thread is there to deadlock
        )  # fmt: skip
        try:
            _let_through()
            return child.wait()
        finally:
            _end(child)
    finally:
        _let_through()


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)  # a group of its own; the pid is not reused before it is waited for
    try:
        child.wait(KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
