"""What must be known after the runner was killed: one small JSON file for each model, replaced whole, on disk when
`write` returns.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Raised whenever an older runner would misread the entries. Entries of another version are reported, and their
# processes reaped.
VERSION = 1

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Entry:
    """What was written under `name`."""

    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that this version cannot use: of another version, or damaged by somebody."""

    name: str
    why: str


class JournalInUse(Exception):
    """Another runner has the journal open; two would take each other's backends for orphans."""


class Journal:
    """The entries in `folder`, which is made if it is not there. They may hold keys: only the owner can read them.

    Raises:
        JournalInUse: another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise JournalInUse(f"another runner uses {folder}; give each its own --state-dir") from error

    def close(self) -> None:
        """Let it be opened again. The kernel does the same when this process ends."""
        os.close(self._lock)

    def write(self, name: str, body: Mapping[str, Any]) -> None:
        """Replace the entry. After a crash at any point there is either the old one or the new one.

        Raises:
            OSError: the disk refuses it.
        """
        target = self._folder / (name + _SUFFIX)
        scratch = target.with_suffix(".tmp")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"version": VERSION, **body}, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
        self._sync_folder()

    def remove(self, name: str) -> None:
        """Remove the entry, if there is one."""
        with suppress(FileNotFoundError):
            (self._folder / (name + _SUFFIX)).unlink()
            self._sync_folder()

    def set_aside(self, name: str) -> None:
        """Rename an entry that cannot be used, so that it is kept and not read again."""
        path = self._folder / (name + _SUFFIX)
        path.replace(path.with_suffix(".unusable"))

    def read_all(self) -> Iterator[Entry | Unreadable]:
        """Every entry, in the order of their names."""
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            yield _read(path)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path) -> Entry | Unreadable:
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return Unreadable(path.stem, str(error))
    if not isinstance(body, dict):
        return Unreadable(path.stem, "not an object")
    if (version := body.pop("version", None)) != VERSION:
        return Unreadable(
            path.stem, f"written by another version of the runner (format {version}, this one reads {VERSION})"
        )
    return Entry(path.stem, body)
