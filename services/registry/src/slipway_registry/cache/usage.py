"""Where the cache's bytes are; every file on the disk counts once, however many names it has."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths

from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.partials import partial_bytes
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.scan import Inode
from slipway_registry.cache.trash import trash_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes, and counts of repositories and snapshots."""

    disk_total: int
    disk_free: int
    snapshots: int
    pinned: int
    partials: int
    trash: int
    repo_count: int
    snapshot_count: int


def read_usage(index: CacheIndex, pins: PinBook, hub: Path) -> Usage:
    """The usage, as the index knows it; partial files and trash as they are at this moment."""
    repos = index.repos()
    sizes: dict[Inode, int] = {}
    pinned: dict[Inode, int] = {}
    held = {(pin.repo, pin.commit) for pin in pins.all()}
    for contents in repos:
        for commit, snapshot in contents.snapshots.items():
            found = {link.path: link for link in snapshot.links if link.inode}
            sizes |= {link.inode: link.size for link in found.values() if link.inode}
            if (contents.repo, commit) in held:
                mine = pins.of(contents.repo, commit)
                pinned |= {
                    link.inode: link.size
                    for path, link in found.items()
                    if link.inode and any(pin.covers((path,)) for pin in mine)
                }
    disk = shutil.disk_usage(hub)
    folders = [RepoPaths(hub, repo) for repo in index.candidates()]
    return Usage(
        disk_total=disk.total,
        disk_free=disk.free,
        snapshots=sum(sizes.values()),
        pinned=sum(pinned.values()),
        partials=sum(map(partial_bytes, folders)),
        trash=sum(map(trash_bytes, folders)),
        repo_count=sum(1 for contents in repos if contents.snapshots),
        snapshot_count=sum(len(contents.snapshots) for contents in repos),
    )
