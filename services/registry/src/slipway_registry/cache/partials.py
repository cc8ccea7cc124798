"""What lies in a repository's folder and belongs to no snapshot: partial files, and contents that nothing links."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths

from slipway_registry.cache import trash
from slipway_registry.cache.files import remove_tree, statuses_below
from slipway_registry.cache.scan import RepoContents
from slipway_registry.cache.weigh import freed

_STAT_BLOCK = 512  # st_blocks counts these whatever the file system's block size is
_INCOMPLETE = ".incomplete"  # how huggingface_hub ends the names of its own partials, which it never takes up again


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or directory, the bytes that come free with it, and when it last changed (seconds since 1970).

    `content`: it has the name of a whole blob, as what a deletion leaves that was killed, or a download that failed.
    """

    path: Path
    size: int
    changed: float
    content: bool = False


def leftovers(paths: RepoPaths, contents: RepoContents, wanted: Collection[str]) -> Iterator[Leftover]:
    """Everything of the kind that no download wants.

    Args:
        wanted: blobs that downloads, also paused ones, count on.
    """
    for found in _partials(paths):
        if found.path.name not in wanted:
            yield found
    linked = {link.blob for it in contents.snapshots.values() for link in it.links}
    for name, blob in contents.blobs.items():
        partial = name.endswith(_INCOMPLETE)
        if partial or (name not in linked and name not in wanted):
            size = blob.size if blob.names == 1 else 0
            yield Leftover(path=paths.blobs / name, size=size, changed=blob.changed, content=not partial)


def partial_bytes(paths: RepoPaths) -> int:
    """Bytes that downloads on their way take; contents that have names elsewhere are not among them."""
    return sum(found.size for found in _partials(paths))


def throw_away(leftover: Leftover) -> None:
    """Delete it."""
    if leftover.path.is_dir():
        remove_tree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)


def _partials(paths: RepoPaths) -> Iterator[Leftover]:
    """As they are at this moment: downloads take files and folders away when they end."""
    for path in _children(paths.ingest):
        if path.name != trash.NAME and (found := list(statuses_below(path))):
            size = sum(it.st_blocks for it in freed(found)) * _STAT_BLOCK
            yield Leftover(path=path, size=size, changed=max(it.st_ctime for it in found))


def _children(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except OSError:
        return []
