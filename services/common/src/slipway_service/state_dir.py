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
        """Publish addresses that are being listened on; `grpc` also as the whole content of `address`.

        Raises:
            StartError: the disk refuses them.
        """
        self.addresses.update(addresses)
        try:
            write_whole(self.path / ADDRESSES, json.dumps(self.addresses, indent=2) + "\n")
            if "grpc" in addresses:
                write_whole(self.path / ADDRESS, addresses["grpc"] + "\n")
        except OSError as error:
            raise StartError(f"{error.filename or self.path}: {error.strerror}") from None

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
            state = StateDir(path)
            state.withdraw()  # before our name is there: an address beside it is ours
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StartError(f"{path}: {error.strerror}") from None
        try:
            yield state
        finally:
            state.withdraw()
    finally:
        os.close(lock)


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Whole or not at all: scripts wait for such files and read them at once.

    Args:
        path: the file, replaced if it is there.
        text: its content.
        durable: the disk has it on return, so that it is there, and whole, after the host lost its power.

    Raises:
        OSError: the disk refuses it.
    """
    new = path.with_name(path.name + ".new")
    with new.open("w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
