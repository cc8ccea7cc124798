"""A snapshot as callers see it: which of the commit's files are there, which variants are whole, what it weighs."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from slipway_service.weights.cache_paths import snapshot_path
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId
from slipway_service.weights.variant import Variant
from slipway_service.weights.variants import find_variants

from slipway_registry.cache.scan import Inode, Link, RepoContents, SnapshotContents


def snapshot_name(repo: RepoId, commit: Commit) -> str:
    """`snapshots/{id}`. The id follows from repository and commit: one who knows these needs no look-up."""
    return f"snapshots/{hashlib.sha256(f'{repo}@{commit}'.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What our last hash of a blob said: when it was right (seconds since 1970), or that it was wrong."""

    inode: int
    mtime_ns: int
    time: float | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStanding:
    """A file of a commit. `verify_time` in seconds since 1970; None where we have not hashed what is there now."""

    file: RepoFile
    present: bool
    inode: Inode | None = None
    verify_time: float | None = None
    damaged: bool = False

    @property
    def sound(self) -> bool:
        """Whether it is there, and not known to be damaged."""
        return self.present and not self.damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantStanding:
    """A variant of a commit and how much of it is there; sizes in bytes."""

    variant: Variant
    complete: bool
    verified: bool
    present_bytes: int
    size_bytes: int

    @property
    def name(self) -> str:
        """Its name within the commit."""
        return self.variant.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is remembered of a snapshot beside the disk: its uid, and times in seconds since 1970."""

    uid: str
    create_time: float
    use_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A commit in the cache.

    Attributes:
        refs: branches, tags and `refs/pr/N` that name it, in order.
        files: those that the commit has, as far as known, by path.
        present_bytes: of its files that are there, each content counted once.
        exclusive_bytes: what would come free with it, of files that are not whole too.
        listed: whether the commit's listing is known; without one nothing is called complete.
    """

    repo: RepoId
    commit: Commit
    record: Record
    refs: tuple[str, ...]
    files: tuple[FileStanding, ...]
    variants: tuple[VariantStanding, ...]
    listed: bool
    present_bytes: int
    exclusive_bytes: int
    pin_count: int = 0

    @property
    def name(self) -> str:
        """`snapshots/{id}`."""
        return snapshot_name(self.repo, self.commit)

    @property
    def path(self) -> str:
        """Relative to the hub cache."""
        return snapshot_path(self.repo, self.commit)

    @property
    def complete(self) -> bool:
        """Whether every file of the commit is there, and none known to be damaged."""
        return self.listed and all(file.sound for file in self.files)

    @property
    def damaged(self) -> frozenset[str]:
        """Paths of the files whose last hash was wrong."""
        return frozenset(standing.file.path for standing in self.files if standing.damaged)

    @property
    def sound(self) -> frozenset[str]:
        """Paths of the files that are there and not known to be damaged."""
        return frozenset(standing.file.path for standing in self.files if standing.sound)

    @property
    def listing(self) -> tuple[RepoFile, ...]:
        """Every file of the commit, as far as known."""
        return tuple(standing.file for standing in self.files)

    @property
    def present(self) -> frozenset[str]:
        """Paths of the files that are there."""
        return frozenset(standing.file.path for standing in self.files if standing.present)

    @property
    def etag(self) -> str:
        """Changes with all that callers see of it."""
        files = [(it.file.path, it.file.blob_id, it.present, it.verify_time, it.damaged) for it in self.files]
        seen = (self.record, self.refs, files, self.listed, self.exclusive_bytes, self.pin_count)
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]

    def pinned(self, count: int) -> "Snapshot":
        """The same with another number of pins."""
        return self if count == self.pin_count else replace(self, pin_count=count)


def stand(
    contents: SnapshotContents,
    repo: RepoContents,
    record: Record,
    checks: Mapping[str, Checked],
    exclusive: Iterable[Inode],
) -> Snapshot:
    """The snapshot that a directory of links is.

    Args:
        checks: by blob name, what we know of the repository's blobs.
        exclusive: inodes that would come free with it.
    """
    links: dict[str, Link] = {link.path: link for link in contents.links}
    listing = contents.listing if contents.listing is not None else tuple(map(_unlisted, contents.links))
    files = tuple(_standing(file, links.get(file.path), checks.get(file.blob_id)) for file in listing)
    sizes = {link.inode: link.size for link in contents.links if link.inode is not None}
    by_path: dict[str, FileStanding] = {standing.file.path: standing for standing in files}
    return Snapshot(
        repo=repo.repo,
        commit=contents.commit,
        record=record,
        refs=tuple(sorted(name for name, commit in repo.refs.items() if commit == contents.commit)),
        files=files,
        variants=tuple(_variant(variant, by_path) for variant in find_variants(listing)),
        listed=contents.listing is not None,
        present_bytes=sum({it.inode: it.file.size_bytes for it in files if it.present}.values()),
        exclusive_bytes=sum(sizes.get(inode, 0) for inode in set(exclusive)),
    )


def _unlisted(link: Link) -> RepoFile:
    """A file that only its link tells of: another program's snapshot from before there were listings."""
    return RepoFile(path=link.path, size_bytes=link.size, blob_id=link.blob, lfs=len(link.blob) == 64)


def _standing(file: RepoFile, link: Link | None, check: Checked | None) -> FileStanding:
    if link is None or link.inode is None:
        return FileStanding(file=file, present=False)
    known = check if check and (check.inode, check.mtime_ns) == (link.inode[1], link.mtime_ns) else None
    return FileStanding(
        file=file,
        present=link.size == file.size_bytes,
        inode=link.inode,
        verify_time=known.time if known else None,
        damaged=known is not None and known.damaged,
    )


def _variant(variant: Variant, files: Mapping[str, FileStanding]) -> VariantStanding:
    mine = [files[file.path] for file in variant.files]
    return VariantStanding(
        variant=variant,
        complete=not variant.missing and all(it.sound for it in mine),
        verified=not variant.missing and all(it.present and it.verify_time is not None for it in mine),
        present_bytes=sum(it.file.size_bytes for it in mine if it.present),
        size_bytes=variant.size_bytes,
    )
