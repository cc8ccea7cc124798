"""Where the cache's bytes are; every file on the disk counts once, however many names it has."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId

from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.partials import partial_bytes
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.scan import Inode, Link, RepoContents
from slipway_registry.cache.trash import trash_bytes
from slipway_registry.cache.weigh import names_in


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoUsage:
    """What a repository takes, in bytes and counts.

    Attributes:
        exclusive: what would come free if all of its snapshots were deleted.
        partials: of downloads on their way, and of contents that no snapshot has.
        use_time: when one of them was last used, seconds since 1970; None without a snapshot.
    """

    repo: RepoId
    snapshots: int
    exclusive: int
    pinned: int
    partials: int
    snapshot_count: int
    pin_count: int
    use_time: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes, and counts of repositories and snapshots; `repos` are those that take space, by id."""

    disk_total: int
    disk_free: int
    snapshots: int
    pinned: int
    partials: int
    trash: int
    repo_count: int
    snapshot_count: int
    repos: tuple[RepoUsage, ...]


def read_usage(index: CacheIndex, pins: PinBook, hub: Path) -> Usage:
    """The usage, as the index knows it; partial files and trash as they are at this moment."""
    known = {contents.repo: contents for contents in index.repos()}
    names = Counter(inode for contents in known.values() for inode in names_in(contents))
    folders = {repo: RepoPaths(hub, repo) for repo in sorted(index.candidates())}
    linked = {inode for contents in known.values() for inode in _links(contents)}
    sizes: dict[Inode, int] = {}
    spare: dict[Inode, int] = {}
    pinned: dict[Inode, int] = {}
    repos, partials = [], 0
    for repo, paths in folders.items():
        contents = known.get(repo)
        links = _links(contents) if contents else {}
        mine = [pin for pin in pins.all() if pin.repo == repo]
        held = _held(contents, mine) if contents else {}
        loose = _loose(contents, linked) if contents else {}
        sizes |= {inode: link.size for inode, link in links.items()}
        pinned |= held
        spare |= loose
        on_their_way = partial_bytes(paths)
        partials += on_their_way
        repos.append(
            RepoUsage(
                repo=repo,
                snapshots=sum(link.size for link in links.values()),
                exclusive=_exclusive(contents, links, names) if contents else 0,
                pinned=sum(held.values()),
                partials=on_their_way + sum(loose.values()),
                snapshot_count=len(contents.snapshots) if contents else 0,
                pin_count=len(mine),
                use_time=max((it.record.use_time for it in index.of(repo)), default=None),
            )
        )
    disk = shutil.disk_usage(hub)
    return Usage(
        disk_total=disk.total,
        disk_free=disk.free,
        snapshots=sum(sizes.values()),
        pinned=sum(pinned.values()),
        partials=partials + sum(spare.values()),
        trash=sum(map(trash_bytes, folders.values())),
        repo_count=sum(1 for it in repos if it.snapshot_count),
        snapshot_count=sum(it.snapshot_count for it in repos),
        repos=tuple(it for it in repos if it.snapshot_count or it.partials),
    )


def _links(contents: RepoContents) -> dict[Inode, Link]:
    """The contents of all snapshots, each under the one inode that it has."""
    return {link.inode: link for it in contents.snapshots.values() for link in it.links if link.inode}


def _loose(contents: RepoContents, linked: set[Inode]) -> dict[Inode, int]:
    """Sizes of the contents that no snapshot has: a quota counts these too."""
    return {blob.inode: blob.size for blob in contents.blobs.values() if blob.inode not in linked}


def _held(contents: RepoContents, pins: list[Pin]) -> dict[Inode, int]:
    """Sizes of the contents that pins cover."""
    return {
        link.inode: link.size
        for commit, snapshot in contents.snapshots.items()
        for link in snapshot.links
        if link.inode and any(pin.commit == commit and pin.covers((link.path,)) for pin in pins)
    }


def _exclusive(contents: RepoContents, links: dict[Inode, Link], names: Counter[Inode]) -> int:
    """Bytes of contents that no other repository has, nor a store that blobs link; `names` are those of the cache."""
    inside = Counter(names_in(contents))
    return sum(link.size for inode, link in links.items() if 0 < names[inode] == inside[inode])
