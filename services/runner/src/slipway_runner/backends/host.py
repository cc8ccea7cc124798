"""Runs programs to ask them about themselves."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from slipway_runner.backends.base import Ran


def run_program(argv: tuple[str, ...], *, seconds: float, env: Mapping[str, str]) -> Ran:
    """Run a program to its end, for at most `seconds`, with no input, and nothing of ours in its environment."""
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", **env},
            start_new_session=True,
        )
    except OSError as error:
        return Ran(exit_code=None, stdout="", stderr=error.strerror or str(error))
    try:
        stdout, stderr = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return Ran(exit_code=None, stdout="", stderr=f"no answer within {seconds:g} s")
    return Ran(
        exit_code=child.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )
