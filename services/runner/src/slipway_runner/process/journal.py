"""What must be known after the runner was killed: one small JSON file for each model, replaced whole.

A written entry is in NAME.NUMBER.fresh, which a kill of the runner cannot take away any more, and takes a fraction of
a millisecond: a new name, since replacing a file has ext4 write its data (mount option auto_da_alloc). `sync` copies it
to NAME.json on the disk, which may take seconds while others write. So what the runner did just before it was killed is
known, and a host that loses power has an entry before it at least.
"""

import fcntl
import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Raised whenever an older runner would misread the entries. Entries of another version are reported, and their
# processes reaped.
VERSION = 1

_FRESH, _DURABLE = ".fresh", ".json"

_ENTRY = re.compile(r"(?P<name>[^.]+)(\.[0-9]+\.fresh|\.json)\Z")


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
    torn: bool = False
    """It is no JSON at all: the host lost its power before the disk had it."""


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
        """Replace the entry. After a kill at any point there is either the old one or the new one.

        Raises:
            OSError: the disk refuses it.
        """
        before = self._fresh(name)
        scratch = self._folder / f"{name}.tmp"
        with _open_private(scratch) as file:
            json.dump({"version": VERSION, **body}, file)
        scratch.rename(self._folder / f"{name}.{_number(before) + 1}{_FRESH}")
        for older in before:
            older.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove the entry, if there is one."""
        for path in (*self._fresh(name), self._durable(name)):
            path.unlink(missing_ok=True)

    def sync(self, name: str) -> None:
        """Have the disk hold what was written or removed before. One thread at a time; `write` may go on meanwhile.

        Raises:
            OSError: the disk refuses it.
        """
        with suppress(FileNotFoundError, IndexError):  # removed
            text = self._fresh(name)[0].read_text()
            scratch = self._folder / f"{name}.sync"
            with _open_private(scratch) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._durable(name))
        if not self._fresh(name):  # it was removed meanwhile
            self._durable(name).unlink(missing_ok=True)
        self._sync_folder()

    def set_aside(self, name: str) -> None:
        """Rename an entry that cannot be used, so that it is kept and not read again."""
        for path in (self._durable(name), *reversed(self._fresh(name))):
            with suppress(FileNotFoundError):
                path.replace(self._folder / f"{name}.unusable")

    def read_all(self) -> Iterator[Entry | Unreadable]:
        """Every entry, in the order of their names. Files that are named otherwise are none of ours."""
        for name in sorted({match["name"] for path in self._folder.iterdir() if (match := _ENTRY.match(path.name))}):
            yield self._read(name)

    def _read(self, name: str) -> Entry | Unreadable:
        paths = (*self._fresh(name), self._durable(name))
        found = [_read(name, path) for path in paths if path.exists()]
        whole = [entry for entry in found if not isinstance(entry, Unreadable) or not entry.torn]
        return (whole or found)[0]

    def _fresh(self, name: str) -> list[Path]:
        """The newest first; of more than one, all but that were about to be removed."""
        pattern = f"{glob.escape(name)}.*{_FRESH}"
        found = [path for path in self._folder.glob(pattern) if _ENTRY.match(path.name)]
        return sorted(found, key=lambda path: -_number([path]))

    def _durable(self, name: str) -> Path:
        return self._folder / f"{name}{_DURABLE}"

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _open_private(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w")


def _number(fresh: Sequence[Path]) -> int:
    """Of the newest; 0 when there is none."""
    return int(fresh[0].name.split(".")[-2]) if fresh else 0


def _read(name: str, path: Path) -> Entry | Unreadable:
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return Unreadable(name, str(error), torn=True)
    if not isinstance(body, dict):
        return Unreadable(name, "not an object")
    if (version := body.pop("version", None)) != VERSION:
        return Unreadable(
            name, f"written by another version of the runner (format {version}, this one reads {VERSION})"
        )
    return Entry(name, body)
