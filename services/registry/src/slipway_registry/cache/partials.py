"""What lies in a repository's folder and belongs to no snapshot: partial files, and contents that nothing links."""

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths

from slipway_registry.cache import trash
from slipway_registry.cache.files import remove_tree
from slipway_registry.cache.scan import RepoContents

_STAT_BLOCK = 512  # st_blocks counts these whatever the file system's block size is
_INCOMPLETE = ".incomplete"  # how huggingface_hub ends the names of its own partials, which it never takes up again


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or directory, the bytes that it takes, and when it last changed (seconds since 1970)."""

    path: Path
    size: int
    changed: float


def leftovers(paths: RepoPaths, contents: RepoContents, wanted: Collection[str]) -> Iterator[Leftover]:
    """Everything of the kind that no download wants.

    Args:
        wanted: blobs that downloads, also paused ones, count on.
    """
    for path in _children(paths.ingest):
        if path.name != trash.NAME and path.name not in wanted:
            yield _weigh(path)
    linked = {link.blob for it in contents.snapshots.values() for link in it.links}
    for name, blob in contents.blobs.items():
        if name.endswith(_INCOMPLETE) or (name not in linked and name not in wanted):
            yield Leftover(path=paths.blobs / name, size=blob.size if blob.names == 1 else 0, changed=blob.changed)


def partial_bytes(paths: RepoPaths) -> int:
    """Bytes that downloads on their way take."""
    return sum(_weigh(path).size for path in _children(paths.ingest) if path.name != trash.NAME)


def throw_away(leftover: Leftover) -> None:
    """Delete it."""
    if leftover.path.is_dir():
        remove_tree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)


def _weigh(path: Path) -> Leftover:
    size, changed = 0, 0.0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            status = file.lstat()
            changed = max(changed, status.st_ctime)
            if file.is_file():
                size += status.st_blocks * _STAT_BLOCK
    return Leftover(path=path, size=size, changed=changed)


def _children(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except (FileNotFoundError, NotADirectoryError):
        return []
