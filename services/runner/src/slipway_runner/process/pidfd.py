"""Waiting for processes by file descriptor (pidfd_open(2)): no polling, no signal handler, no confusion over reused
pids.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import anyio

from slipway_runner.process import proc
from slipway_runner.process.proc import ProcessId


class Pidfd:
    """A handle on exactly one process; it stays valid, and harmless, after the process has gone."""

    def __init__(self, process: ProcessId, descriptor: int | None) -> None:
        self.process = process
        self._descriptor = descriptor

    @classmethod
    def open(cls, process: ProcessId) -> Self:
        """A handle, also on a process that is gone (then `wait` returns at once and `send` does nothing)."""
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return cls(process, None)
        found = proc.stat(process.pid)  # read after the open: the pid may have been handed on before it
        if found is None or found.id != process:
            os.close(descriptor)
            return cls(process, None)
        return cls(process, descriptor)

    async def wait(self) -> None:
        """Return when the process has exited. Its parent may not have reaped it yet."""
        if self._descriptor is not None:
            await anyio.wait_readable(self._descriptor)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone; nothing happens when it is gone."""
        if self._descriptor is None:
            return
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def exited(process: ProcessId) -> None:
    """Return when `process` has exited, at once when it already has."""
    with Pidfd.open(process) as handle:
        await handle.wait()


async def all_exited(processes: Iterable[ProcessId]) -> None:
    """Return when every one of them has exited."""
    with ExitStack() as handles:
        for handle in [handles.enter_context(Pidfd.open(process)) for process in processes]:
            await handle.wait()


def send(process: ProcessId, number: signal.Signals) -> None:
    """Send a signal to exactly this process."""
    with Pidfd.open(process) as handle:
        handle.send(number)
