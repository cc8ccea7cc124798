"""Loopback ports for backends: held from the moment they are chosen, and checked to be our process's when it answers.

A port is kept by a socket that is bound and never listens. It shares the address (SO_REUSEADDR and SO_REUSEPORT, one
of which every server sets), so the backend can bind it as well, while the kernel gives it to nobody who asks for any
port.
"""

import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from slipway_service.fault import Fault, Reason

from slipway_runner.process.proc import PROC, ProcessId

# State TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h).
_LISTEN = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class Owner(Enum):
    """Who listens on a port."""

    NOBODY = "nobody"
    OURS = "ours"
    FOREIGN = "foreign"


class Ports:
    """The ports that this runner has handed out.

    Args:
        host: address that backends listen on.
        choices: ports to choose from; None leaves the choice to the kernel.
    """

    def __init__(self, host: str = "127.0.0.1", choices: range | None = None) -> None:
        self._host = host
        self._choices = choices
        self._held: dict[int, socket.socket | None] = {}

    def hold(self) -> int:
        """Choose a port that nobody uses and keep it until `release`.

        Raises:
            Fault: PORT_IN_USE when every port of the range is taken.
        """
        for port in self._choices if self._choices is not None else (0,):
            if port not in self._held and (held := self._bind(port)) is not None:
                number = int(held.getsockname()[1])
                self._held[number] = held
                return number
        raise Fault(Reason.PORT_IN_USE, f"every port of {self._choices} is taken; widen the range for backends")

    def claim(self, port: int) -> None:
        """Count a port as handed out that an adopted backend listens on already."""
        self._held.setdefault(port, None)

    def release(self, port: int) -> None:
        """Give a port back; its backend is gone."""
        held = self._held.pop(port, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Give all of them back."""
        for port in tuple(self._held):
            self.release(port)

    def _bind(self, port: int) -> socket.socket | None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        if port and _inodes(port):
            return None  # a listener that shares its port would let us bind
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with suppress(OSError):
            held.bind((self._host, port))
            return held
        held.close()
        return None


def owner(port: int, processes: Iterable[ProcessId]) -> Owner:
    """Who listens on `port`: one of `processes` and no other, somebody else, or nobody."""
    listening = _inodes(port)
    if not listening:
        return Owner.NOBODY
    ours: set[str] = set()
    for process in processes:
        ours |= listening & _sockets(process.pid)
        if ours == listening:
            return Owner.OURS
    return Owner.FOREIGN


def _inodes(port: int) -> set[str]:
    """Inodes of the sockets that listen on `port`, on any address (proc(5), /proc/net/tcp)."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        path = PROC / "net" / table
        if not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    folder = PROC / str(pid) / "fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                if match := _SOCKET.fullmatch(os.readlink(Path(folder, name))):
                    found.add(match[1])
    return found
