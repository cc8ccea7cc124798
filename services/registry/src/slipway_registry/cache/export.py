"""A snapshot as real files in a plain directory, each whole or absent."""

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.values import rounded_size
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.transfer.errors import DiskFull, disk_errors
from slipway_registry.transfer.halt import Halt

# Copied between two looks at whether to stop.
_PIECE_BYTES = 8 << 20

_DRAFT = ".slipway-"
"""How unfinished files begin; those of an export that was interrupted are replaced."""


class Export:
    """Copies files in a thread; its figures may be read from another."""

    def __init__(self, hub: Path, repo: RepoId, commit: Commit, files: Sequence[RepoFile], directory: Path) -> None:
        self._snapshot = RepoPaths(hub, repo).snapshot(commit)
        self._files = files
        self._directory = directory
        self.done_bytes = 0
        self.total_bytes = sum(file.size_bytes for file in files)

    def run(self, halt: Halt) -> None:
        """Return when every file is there and on the disk. What an earlier export left is written anew.

        Raises:
            Fault: PATH_NOT_ALLOWED, the directory holds other files; DISK_FULL, DISK_FAULT. Halted.
        """
        self._check_directory()
        try:
            with disk_errors(self._directory):
                self._check_space()
                for file in self._files:
                    self._copy(file, halt)
        except DiskFull as full:
            raise Fault(
                Reason.DISK_FULL, f"{full}. What was written stays: export again when there is space."
            ) from full

    def _check_directory(self) -> None:
        mine = {file.path for file in self._files}
        for parent, _, names in os.walk(self._directory):
            for name in names:
                path = Path(parent, name).relative_to(self._directory).as_posix()
                if path not in mine and not name.startswith(_DRAFT):
                    text = f"{self._directory} holds {path}, which is no file of the export: give another directory."
                    raise Fault(Reason.PATH_NOT_ALLOWED, text)

    def _check_space(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        there = (self._directory / file.path for file in self._files)
        needed = self.total_bytes - sum(path.stat().st_size for path in there if path.is_file())
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            text = f"{rounded_size(needed)} are needed in {self._directory}, {rounded_size(free)} are free"
            facts = {"needed": str(needed), "free": str(free)}
            place = (Precondition("DISK", str(self._directory), text),)
            raise Fault(Reason.DISK_FULL, text, facts=facts, preconditions=place)

    def _copy(self, file: RepoFile, halt: Halt) -> None:
        target = self._directory / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.resolve().is_relative_to(self._directory):
            raise Fault(Reason.PATH_NOT_ALLOWED, f"{target} is a link to another place.")
        draft = target.with_name(f"{_DRAFT}{secrets.token_hex(4)}")
        try:
            with (self._snapshot / file.path).open("rb") as source, draft.open("xb") as copy:
                while piece := source.read(_PIECE_BYTES):
                    halt.check()
                    copy.write(piece)
                    self.done_bytes += len(piece)
                copy.flush()
                os.fsync(copy.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
