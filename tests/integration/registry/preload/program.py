"""`slipway-registry preload` as an image build runs it, in this process or in one of its own."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from slipway_registry.main import main
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId

PROGRAM = Path(sys.executable).with_name("slipway-registry")
PATIENCE = 100.0
"""Seconds that a run may take; one takes a second or two."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The output of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An image build: a home with a cache and a state directory, and the Hub that it sees."""

    directory: Path
    endpoint: str

    @property
    def home(self) -> Path:
        """`HF_HOME`."""
        return self.directory / "home"

    @property
    def hub(self) -> Path:
        """The hub cache."""
        return self.home / "hub"

    @property
    def state(self) -> Path:
        """The registry's state directory."""
        return self.directory / "state"

    def paths(self, repo: str) -> RepoPaths:
        """A repository's folder in the cache."""
        return RepoPaths(self.hub, RepoId(repo))

    def preload(self, *arguments: str, **environment: str) -> Ended:
        """Run the program's main function here: a process takes two seconds to start."""
        out, err = io.StringIO(), io.StringIO()
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            with (
                patch.dict(os.environ, self._environment(environment), clear=True),
                patch.object(sys, "argv", self._command(arguments)),
                redirect_stdout(out),
                redirect_stderr(err),
            ):
                main()
        except SystemExit as ended:
            return Ended(int(str(ended.code)), out.getvalue(), err.getvalue())
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.captureWarnings(False)

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Run it as a process, to its end."""
        with self.running(*arguments, **environment) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return Ended(process.returncode, out, err)

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start it as a process; killed at the end of the block if it still runs."""
        with subprocess.Popen(
            self._command(arguments),
            env=self._environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(PROGRAM), "preload", "--state-dir", str(self.state), "--disk-reserve", "0", *arguments]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SLIPWAY_"))}
        mine = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.endpoint, "HOME": str(self.directory)}
        return {**inherited, **mine, **more}
