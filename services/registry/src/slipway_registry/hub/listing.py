"""The files of a commit, as the Hub lists them, checked before anything else sees them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, Commit, FilePath, RepoId, Revision, XetHash

MAX_FILES = 100_000
"""Largest listing that is taken: the Hub advises against more, and every answer that shows one grows with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoTree:
    """All files of a repository at one commit.

    Attributes:
        requested: the repository as it was asked for. The cache's folder is named by it, because readers ask by it too.
        repo: the repository as the Hub spells it today; another one where it was renamed.
        revision: the revision as it was asked for.
        commit: what it resolved to.
        files: every file, by path.
        from_cache: whether the cache said so, because the Hub was not asked or not reached.
    """

    requested: RepoId
    repo: RepoId
    revision: Revision
    commit: Commit
    files: tuple[RepoFile, ...]
    from_cache: bool = False

    @property
    def total_bytes(self) -> int:
        """Sum of all sizes."""
        return sum(file.size_bytes for file in self.files)


def files_of(entries: Iterable[Any]) -> list[RepoFile]:
    """The files of a page of `GET …/tree/…?recursive=true`; folders are left out.

    Raises:
        Fault: HUB_ANSWER_UNSAFE where a path, size or hash is not one.
    """
    return [_file(entry) for entry in entries if not (isinstance(entry, Mapping) and entry.get("type") == "directory")]


def checked(files: Iterable[RepoFile]) -> tuple[RepoFile, ...]:
    """The files by path.

    Raises:
        Fault: HUB_ANSWER_UNSAFE where two share a path, or one is another's folder.
    """
    ordered = sorted(files, key=lambda file: file.path)
    by_path = {file.path: file for file in ordered}
    if len(by_path) != len(ordered):
        raise _unsafe("lists a path twice")
    for file in ordered:
        folder = file.path.folder
        while folder:
            if folder in by_path:
                raise _unsafe(f"lists {folder!r} as a file and as a folder")
            folder = folder.rpartition("/")[0]
    return tuple(ordered)


def _file(entry: Any) -> RepoFile:
    try:
        lfs = entry.get("lfs")
        git = BlobId(entry["oid"])
        size = entry["size"]
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError("a size is a whole number of bytes")
        return RepoFile(
            path=FilePath(entry["path"]),
            size_bytes=size,
            blob_id=BlobId(lfs["oid"]) if lfs else git,
            lfs=bool(lfs),
            xet_hash=XetHash(entry["xetHash"]) if entry.get("xetHash") else "",
            git_oid=git,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        path = entry.get("path") if isinstance(entry, Mapping) else entry
        raise _unsafe(f"lists {str(path)[:200]!r}: {error}") from error


def _unsafe(what: str) -> Fault:
    return Fault(Reason.HUB_ANSWER_UNSAFE, f"The Hub {what}. Nothing of this revision is taken.")
