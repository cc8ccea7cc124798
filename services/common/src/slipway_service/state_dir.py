"""The directory of a running service: held by one process, with the addresses it chose."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS = "address"
ADDRESSES = "addresses.json"
ADMIN_SOCKET = "admin.sock"
_LOCK = "lock"


class StartError(Exception):
    """The service cannot start here; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """A state directory that this process holds.

    Attributes:
        path: the directory.
        addresses: what is in `addresses.json`: `grpc`, `metrics`, and what the service adds.
    """

    path: Path
    addresses: dict[str, str] = field(default_factory=dict)

    def announce(self, addresses: Mapping[str, str]) -> None:
        """Publish addresses that are being listened on; `grpc` also as the whole content of `address`."""
        self.addresses.update(addresses)
        _write(self.path / ADDRESSES, json.dumps(self.addresses, indent=2) + "\n")
        if "grpc" in addresses:
            _write(self.path / ADDRESS, addresses["grpc"] + "\n")

    def withdraw(self) -> None:
        """Remove the addresses: nobody listens there any more."""
        for name in (ADDRESS, ADDRESSES, ADMIN_SOCKET):
            (self.path / name).unlink(missing_ok=True)


@contextmanager
def hold(path: Path) -> Iterator[StateDir]:
    """Create the directory if need be, and hold it until the block ends; what a killed process left is withdrawn.

    Raises:
        StartError: another process holds it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)  # journals and logs may hold prompts and keys
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
            raise StartError(f"{path} is in use by process {holder}: stop it, or choose another --state-dir") from None
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            state = StateDir(path)
            state.withdraw()
        except OSError as error:
            raise StartError(f"{path}: {error.strerror}") from None
        try:
            yield state
        finally:
            state.withdraw()
    finally:
        os.close(lock)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: scripts wait for these files and read them at once."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)
