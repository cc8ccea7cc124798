"""What removing something frees: a content is free when its last name has gone, and it is counted once."""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from slipway_service.weights.names import Commit

from slipway_registry.cache.scan import Inode, RepoContents


@dataclass(frozen=True, slots=True)
class Loss:
    """What goes with files of a snapshot: blobs that nothing links then, and the names that contents lose."""

    blobs: frozenset[str]
    names: Counter[Inode]


def names_lost(
    contents: RepoContents,
    commit: Commit,
    paths: Collection[str] | None = None,
    *,
    gone: Collection[Commit] = (),
    wanted: Collection[str] = (),
) -> Loss:
    """What goes with a snapshot, or with these files of it.

    Args:
        gone: other commits that are to be taken for removed already.
        wanted: blobs that stay whatever links them.
    """
    links = contents.snapshots[commit].links
    mine = [link for link in links if paths is None or link.path in paths]
    others = (it.links for other, it in contents.snapshots.items() if other != commit and other not in gone)
    kept = {link.blob for found in others for link in found}
    if paths is not None:
        kept |= {link.blob for link in links if link.path not in paths}
    blobs = frozenset({link.blob for link in mine if link.blob} - kept - set(wanted))
    names = Counter(contents.blobs[blob].inode for blob in blobs if blob in contents.blobs)
    names.update(link.inode for link in mine if link.real and link.inode)
    return Loss(blobs, names)


def names_in(contents: RepoContents) -> Iterator[Inode]:
    """The inode of every name that contents have: blobs, and real files of snapshots."""
    yield from (blob.inode for blob in contents.blobs.values())
    for snapshot in contents.snapshots.values():
        yield from (link.inode for link in snapshot.links if link.real and link.inode)


def freed(statuses: Iterable[os.stat_result]) -> list[os.stat_result]:
    """Contents that come free with all of these files: each once; those that have names elsewhere are left out."""
    files = [it for it in statuses if stat.S_ISREG(it.st_mode)]
    names = Counter((it.st_dev, it.st_ino) for it in files)
    contents = {(it.st_dev, it.st_ino): it for it in files}
    return [it for inode, it in contents.items() if names[inode] == it.st_nlink]


class Scales:
    """Weighs one loss after the other, over any number of repositories as they were just read."""

    def __init__(self, repos: Iterable[RepoContents]) -> None:
        self._names: dict[Inode, int] = {}
        self._sizes: dict[Inode, int] = {}
        for contents in repos:
            for blob in contents.blobs.values():
                self._names[blob.inode], self._sizes[blob.inode] = blob.names, blob.size
            for snapshot in contents.snapshots.values():
                for link in snapshot.links:
                    if link.real and link.inode:
                        self._names[link.inode], self._sizes[link.inode] = link.names, link.size

    @property
    def total(self) -> int:
        """Bytes that have not come free yet."""
        return sum(self._sizes.values())

    def lose(self, names: Counter[Inode]) -> int:
        """Take these names away; returns the bytes that come free."""
        freed = 0
        for inode, count in names.items():
            if inode in self._names:
                self._names[inode] -= count
                if self._names[inode] <= 0:
                    del self._names[inode]
                    freed += self._sizes.pop(inode)
        return freed
