"""Running the command in this process, and as a process of its own."""

import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from slipway_client.cli.main import main

from tests.integration.client.fakes import FakeService

SLIPWAY = Path(sys.executable).parent / "slipway"


@dataclass(frozen=True)
class Ended:
    """How a run ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]

    @property
    def error(self) -> Any:
        [line] = self.err.splitlines()
        return json.loads(line)["error"]


def addresses(fake: FakeService) -> list[str]:
    return ["--registry", fake.address, "--runner", fake.address]


async def slipway(fake: FakeService, *arguments: str) -> Ended:
    """Runs the command in a thread, its asynchronous work on this loop, against a fake of both services."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        run = functools.partial(main, [*addresses(fake), *arguments], run=anyio.from_thread.run)
        code = await anyio.to_thread.run_sync(run)
    return Ended(code, out.getvalue(), err.getvalue())


def environment(home: Path, **more: str) -> Mapping[str, str]:
    """An environment without a configuration of ours in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "GRPC_"))}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home)} | more


async def read_to(process: Process, text: str) -> str:
    """What the process has written up to and with `text`."""
    assert process.stdout is not None
    written = b""
    while text.encode() not in written:
        written += await process.stdout.receive()
    return written.decode()
