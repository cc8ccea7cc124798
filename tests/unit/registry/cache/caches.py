"""A cache, its books, and a clock, without a server and without a Hub."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.index import CacheIndex, Change
from slipway_registry.cache.keeper import Keeper, KeeperSettings
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.pruner import Pruner
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.records import CacheRecords
from slipway_registry.cache.remover import Remover
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.cache.verify import Finding, Verification
from slipway_registry.cache.wanted import Wanted
from slipway_registry.jobs.store import Store, VerifiedBlob
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import OneCore
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision


@dataclass(slots=True)
class Time:
    """A clock that is set by hand."""

    seconds: float = 1_700_000_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep_forever()


@dataclass(slots=True)
class Told:
    """Everything a keeper told."""

    changes: list[Change] = field(default_factory=list)
    pins: list[tuple[Pin, bool]] = field(default_factory=list)

    def snapshot(self, change: Change) -> None:
        self.changes.append(change)

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        self.pins.append((pin, ended))

    def begin(self, snapshots: Iterable[Snapshot], pins: Iterable[Pin]) -> None:
        pass

    async def settle(self) -> None:
        pass


class Cache:
    """A hub cache in a directory, with a keeper over it; close it at the end."""

    def __init__(self, directory: Path, *, symlinks: bool = True, **settings: float) -> None:
        self.hub = directory / "hub"
        self.hub.mkdir(parents=True)
        self.time = Time()
        self.told = Told()
        self.shelf = BlobShelf(self.hub, Modes(file=0o644, directory=0o755))
        self.locks = RepoLocks()
        self.publisher = Publisher(self.shelf, self.locks, symlinks=symlinks)
        self.store = Store.in_directory(directory)
        self.records = CacheRecords(self.store)
        self.pins = PinBook(self.records, self.time.seconds)
        self.index = CacheIndex(self.hub, self.records, self.pins, lambda: self.time.seconds)
        self.keeper = Keeper(
            self.index,
            self.pins,
            self.records,
            self.shelf,
            self.locks,
            Wanted(self.store),
            self.told,
            self.time,
            KeeperSettings(**settings),  # type: ignore[arg-type]
        )
        self.remover = Remover(self.keeper)
        self.pruner = Pruner(self.keeper, self.remover)

    def close(self) -> None:
        self.store.close()

    def paths(self, repo: str) -> RepoPaths:
        return RepoPaths(self.hub, RepoId(repo))

    def verified(self, repo: str, file: RepoFile, status: os.stat_result, *, at: float) -> None:
        """Note that a file was hashed and found right."""
        blob = VerifiedBlob(
            repo=RepoId(repo),
            etag=file.blob_id,
            size=status.st_size,
            inode=status.st_ino,
            mtime_ns=status.st_mtime_ns,
        )
        self.store.set_verified(blob, at=at)

    def verify(self, snapshot: Snapshot, files: Sequence[RepoFile]) -> list[Finding]:
        """Hash files of a snapshot, as `slipway cache verify` does."""
        work = Verification(
            self.shelf, self.store, self.records, snapshot.repo, snapshot.commit, files, core=OneCore(), clock=self.now
        )
        work.run(Halt())
        return work.findings

    def now(self) -> float:
        return self.time.seconds

    def publish(self, repo: str, commit: str, files: Mapping[str, bytes], only: list[str] | None = None) -> None:
        """As a download would, with blobs of other repositories linked."""
        listing = listing_of(files)
        chosen = [file for file in listing if only is None or file.path in only]
        blobs = self.shelf.prepare(RepoId(repo)).blobs
        for file in chosen:
            if not (blobs / file.blob_id).exists():
                elsewhere = sorted(self.hub.glob(f"models--*/blobs/{file.blob_id}"))
                if elsewhere:
                    (blobs / file.blob_id).hardlink_to(elsewhere[0])
                else:
                    (blobs / file.blob_id).write_bytes(files[file.path])
        revision = Revision("main")
        self.publisher.publish(RepoId(repo), Commit(commit), listing, [it.path for it in chosen], revision)


def listing_of(files: Mapping[str, bytes]) -> list[RepoFile]:
    """The listing of a commit with these contents."""
    return [
        RepoFile(path=FilePath(path), size_bytes=len(data), blob_id=hashlib.sha256(data).hexdigest(), lfs=True)
        for path, data in sorted(files.items())
    ]


def note_syncs(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes of what is given to fsync(2) from now on."""
    synced: set[int] = set()
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    return synced
