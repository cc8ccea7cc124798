"""One repository's folder, read as it is: snapshots with their links, blobs, refs, listings. Nothing is changed.

What was read carries the stamps of all that it depends on, so that a few `stat` calls tell whether it still holds:
every program that adds, removes or replaces something in a cache changes the modification time of the directory. What
writes into a content in place does not; only a `stat` of the content itself tells.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import KEEP_PREFIX, Commit, FilePath, RepoId

from slipway_registry.cache.listing import read_listing

Inode = tuple[int, int]
"""Device and inode: what a byte on the disk is counted by."""

# Nanoseconds: modification times move in the kernel's ticks (at most 10 ms), so that a change right after a look may
# leave the time as it was. What changed so recently is looked at again.
_RACY = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A file of a snapshot.

    Attributes:
        path: within the repository.
        blob: the name of the blob that it links, or as a real file is another name of; empty for none.
        real: it is a real file: a name of its content, not a link to one.
        inode, size, mtime_ns, names: of the content; `names` is its count of hard links. Without an inode there is
            nothing behind it.
    """

    path: FilePath
    blob: str
    real: bool = False
    inode: Inode | None = None
    size: int = 0
    mtime_ns: int = 0
    names: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFile:
    """A content below `blobs/`; `names` counts its hard links, `changed` is its ctime: when it got this name, say."""

    inode: Inode
    size: int
    names: int
    changed: float = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotContents:
    """A directory below `snapshots/`, and when it changed; `listing` is None where nothing says what the commit has."""

    commit: Commit
    links: tuple[Link, ...]
    listing: tuple[RepoFile, ...] | None
    changed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoContents:
    """A repository's folder as it was read.

    Attributes:
        blobs: files below `blobs/` by name; those that are links into a shared store hold nothing and are left out.
        refs: the commits that branches, tags and `refs/pr/N` name.
        kept: commits that a ref of our own names.
        stamps: what has to be unchanged for all this to hold.
        marks: of every content, under one of its names: inode, size and modification time.
    """

    repo: RepoId
    snapshots: Mapping[Commit, SnapshotContents]
    blobs: Mapping[str, BlobFile]
    refs: Mapping[str, Commit]
    kept: frozenset[Commit]
    stamps: Mapping[str, tuple[int, int] | None] = field(compare=False)
    marks: Mapping[str, tuple[Inode, int, int]] = field(compare=False)
    read_ns: int = field(compare=False)

    @property
    def holds(self) -> bool:
        """Whether nothing has come, gone or been replaced since."""
        return all(
            _stamp(path) == stamp and (stamp is None or abs(self.read_ns - stamp[0]) > _RACY)
            for path, stamp in self.stamps.items()
        )

    @property
    def contents_hold(self) -> bool:
        """Whether nobody has written into a content since: one `stat` for each."""
        return all(_mark(path) == mark for path, mark in self.marks.items())


def read_repo(paths: RepoPaths) -> RepoContents:
    """The repository's folder; empty where there is none.

    Raises:
        OSError: something in it cannot be read.
    """
    read_ns = time.time_ns()
    reader = _Reader()
    reader.note(paths.root)
    refs, kept = reader.refs(paths)
    blobs = reader.blobs(paths.blobs)
    return RepoContents(
        repo=paths.repo,
        snapshots=reader.snapshots(paths, {blob.inode: name for name, blob in blobs.items()}),
        blobs=blobs,
        refs=refs,
        kept=kept,
        stamps=reader.stamps,
        marks={path: mark for mark, path in reader.marks.items()},
        read_ns=read_ns,
    )


class _Reader:
    """Reads, and notes what it has looked at before it looks: a change meanwhile is seen the next time."""

    def __init__(self) -> None:
        self.stamps: dict[str, tuple[int, int] | None] = {}
        self.marks: dict[tuple[Inode, int, int], str] = {}

    def note(self, path: Path | str) -> None:
        self.stamps[str(path)] = _stamp(str(path))

    def snapshots(self, paths: RepoPaths, blobs: Mapping[Inode, str]) -> dict[Commit, SnapshotContents]:
        self.note(paths.snapshots)
        self.note(paths.trees)
        found = {}
        for entry in _entries(paths.snapshots):
            with contextlib.suppress(ValueError, FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    found[Commit(entry.name)] = self._snapshot(paths, Commit(entry.name), blobs)
        return found

    def _snapshot(self, paths: RepoPaths, commit: Commit, blobs: Mapping[Inode, str]) -> SnapshotContents:
        root = paths.snapshot(commit)
        links: list[Link] = []
        self._links(root, "", paths.blobs, blobs, links)
        return SnapshotContents(
            commit=commit,
            links=tuple(sorted(links, key=lambda link: link.path)),
            listing=read_listing(paths.tree(commit)),
            changed=root.stat().st_mtime,
        )

    def _links(self, directory: Path, prefix: str, folder: Path, blobs: Mapping[Inode, str], into: list[Link]) -> None:
        self.note(directory)
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                self._links(Path(entry.path), f"{prefix}{entry.name}/", folder, blobs, into)
                continue
            with contextlib.suppress(ValueError, FileNotFoundError):
                link = _link(entry, FilePath(prefix + entry.name), folder, blobs)
                into.append(link)
                if link.inode:
                    self.marks.setdefault((link.inode, link.size, link.mtime_ns), entry.path)

    def blobs(self, directory: Path) -> dict[str, BlobFile]:
        self.note(directory)
        found = {}
        for entry in _entries(directory):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    inode = (status.st_dev, status.st_ino)
                    self.marks.setdefault((inode, status.st_size, status.st_mtime_ns), entry.path)
                    found[entry.name] = BlobFile(
                        inode=inode,
                        size=status.st_size,
                        names=status.st_nlink,
                        changed=status.st_ctime,
                    )
        return found

    def refs(self, paths: RepoPaths) -> tuple[dict[str, Commit], frozenset[Commit]]:
        names: dict[str, Commit] = {}
        kept = set()
        for path in self._ref_files(paths.refs):
            name = path.relative_to(paths.refs).as_posix()
            with contextlib.suppress(OSError, ValueError):
                commit = Commit(path.read_text().strip())
                if name.startswith(KEEP_PREFIX):
                    kept.add(commit)
                else:
                    names[name] = commit
        return names, frozenset(kept)

    def _ref_files(self, directory: Path) -> Iterator[Path]:
        self.note(directory)
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                yield from self._ref_files(Path(entry.path))
            else:
                self.note(entry.path)  # older programs write refs in place
                yield Path(entry.path)


def _link(entry: "os.DirEntry[str]", path: FilePath, folder: Path, blobs: Mapping[Inode, str]) -> Link:
    blob, real = "", not entry.is_symlink()
    if not real:
        target = Path(os.path.normpath(Path(entry.path).parent / os.readlink(entry.path)))
        blob = target.name if target.parent == folder else ""
    try:
        status = entry.stat()
    except OSError:  # dangling, or a loop
        return Link(path=path, blob=blob)
    inode = (status.st_dev, status.st_ino)
    return Link(
        path=path,
        blob=blobs.get(inode, "") if real else blob,
        real=real,
        inode=inode,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        names=status.st_nlink,
    )


def _entries(directory: Path) -> Iterable["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _mark(path: str) -> tuple[Inode, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
