"""The cache's books, kept from one event loop: every change of snapshots and pins goes through here, in one order."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import anyio
import structlog
from anyio import CancelScope, CapacityLimiter, Event, Lock, to_thread
from anyio.abc import TaskGroup
from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import VariantSelection, select

from slipway_registry.cache import trash
from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.delete import Removal, plan_removal, remove
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.hold import Hold, held_files, keep_off
from slipway_registry.cache.index import CacheIndex, Change
from slipway_registry.cache.partials import leftovers, throw_away
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.pins import PinBook, pinned
from slipway_registry.cache.prune import Item, Plan, PruneReason, Rules, plan_prune
from slipway_registry.cache.records import CacheRecords, Key
from slipway_registry.cache.scan import read_repo
from slipway_registry.cache.snapshot import FileStanding, Snapshot
from slipway_registry.cache.wanted import Wanted
from slipway_registry.jobs.clock import Clock

log = structlog.get_logger(__name__)
T = TypeVar("T")

_RETRY = 5.0
"""Seconds after which another operation on the same repository may have ended."""

# Seconds between two looks for trash whose grace is over.
_TRASH_INTERVAL = 60.0

# Repositories looked at before others get their turn: some milliseconds on a local disk.
_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Intervals and bounds, in seconds and bytes.

    Attributes:
        rescan_interval: how often to look what other tools have done to the cache; a look is nine `stat` calls for a
            repository.
        expiry_interval: how often pins are looked at.
        grace: how long what was deleted is kept for readers that have it open; 0 on a local disk, where open files
            stay readable anyway.
        partial_retention: how long partial files are kept that no download wants.
        quota: what pruning keeps to; None for no quota.
    """

    rescan_interval: float = 10.0
    expiry_interval: float = 1.0
    grace: float = 0.0
    partial_retention: float = 7 * 86_400.0
    quota: int | None = None


class Listener(Protocol):
    """Told in the event loop, in order; must not block."""

    def snapshot(self, change: Change) -> None:
        """A snapshot has appeared, changed or gone."""
        ...

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        """A pin was taken, renewed, asked for, or has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What a deletion did; `holders` released it first."""

    removal: Removal
    holders: tuple[str, ...]


class Keeper:
    """Create it, enter `running()`, then call the rest from the same event loop."""

    def __init__(
        self,
        index: CacheIndex,
        pins: PinBook,
        records: CacheRecords,
        shelf: BlobShelf,
        locks: RepoLocks,
        wanted: Wanted,
        listener: Listener,
        clock: Clock,
        settings: KeeperSettings,
    ) -> None:
        self.index = index
        self.pins = pins
        self.records = records
        self.shelf = shelf
        self.settings = settings
        self._locks = locks
        self._wanted = wanted
        self._listener = listener
        self._clock = clock
        self._changing = Lock()
        self._thread = CapacityLimiter(1)
        self._unpinned = Event()
        self._entering = 0
        self._entered = Event()
        self._tasks: TaskGroup

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Keeper"]:
        """Read the cache, then keep up with it until the body ends."""
        await self.rescan()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._repeat, self.settings.rescan_interval, self.rescan)
            tasks.start_soon(self._repeat, self.settings.expiry_interval, self._expire)
            tasks.start_soon(self._repeat, _TRASH_INTERVAL, self.empty_trash)
            yield self
            tasks.cancel_scope.cancel()

    async def rescan(self) -> None:
        """Look what has changed in the whole cache."""
        repos = await to_thread.run_sync(self.index.candidates)
        for start in range(0, len(repos), _CHUNK):
            await self.refresh(repos[start : start + _CHUNK])

    async def refresh(self, repos: Collection[RepoId], *, anew: bool = False) -> None:
        """Look what has changed in these repositories, and tell."""
        async with self._changing:
            await self._refresh(repos, anew=anew)

    async def get(self, name: str) -> Snapshot:
        """A snapshot as it is on the disk at this moment.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND.
        """
        await self.refresh([self.index.get(name).repo])
        return self.index.get(name)

    async def find(self, repo: RepoId, revision: Revision) -> Snapshot:
        """The same by repository and commit or ref."""
        await self.refresh([repo])
        return self.index.find(repo, revision)

    async def linked(self, snapshot: Snapshot, variant: str = "") -> tuple[RepoFile, ...]:
        """Files that the snapshot has links for, or all of a variant's: those that can be verified.

        Raises:
            Fault: VARIANT_NOT_FOUND.
        """
        if variant:
            variants = [it.variant for it in snapshot.variants]
            chosen = select(snapshot.listing, variants, VariantSelection(variant))
            return chosen.files
        contents = await self._in_thread(partial(read_repo, RepoPaths(self.shelf.hub, snapshot.repo)))
        there = contents.snapshots.get(snapshot.commit)
        paths = {link.path for link in there.links} if there else set()
        return tuple(file for file in snapshot.listing if file.path in paths and file.blob_id)

    def enter(self, repo: RepoId, commit: Commit) -> None:
        """A download of it has succeeded: enter it beside other work; `settled` waits for that."""
        self._entering += 1
        self._tasks.start_soon(self._enter, repo, commit)

    async def settled(self) -> None:
        """Wait until what has succeeded before is entered, so that who saw a success finds it in a list."""
        while self._entering:
            await self._entered.wait()

    async def _enter(self, repo: RepoId, commit: Commit) -> None:
        try:
            await self.used(repo, commit)
        finally:
            self._entering -= 1
            entered, self._entered = self._entered, Event()
            entered.set()

    async def used(self, repo: RepoId, commit: Commit) -> None:
        """A download of it has succeeded."""
        async with self._changing:
            await self._refresh([repo])
            await self._in_thread(partial(self.index.set_used, (repo, commit), self._now()))
            await self._refresh([repo], anew=True)

    async def pin(self, hold: Hold) -> tuple[Pin, Snapshot, tuple[FileStanding, ...]]:
        """Take or renew a pin.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND, SNAPSHOT_INCOMPLETE, VARIANT_NOT_FOUND, SNAPSHOT_BUSY, DISK_FULL, DISK_FAULT.
        """
        async with self._changing:
            await self._refresh([hold.repo])
            with CancelScope(shield=True):
                pin, files = await self._in_thread(partial(self._hold, hold, self._now()))
                self._listener.pin(pin)
                await self._refresh([hold.repo], anew=True)
        return pin, self.index.get(pin.snapshot), files

    async def unpin(self, pin_id: str) -> None:
        """End a pin.

        Raises:
            Fault: PIN_NOT_FOUND.
        """
        async with self._changing:
            with CancelScope(shield=True):
                await self._ended([await self._in_thread(partial(self.pins.end, pin_id))])

    async def delete(
        self,
        name: str,
        *,
        variant: str = "",
        etag: str = "",
        force: bool = False,
        patience: float = 0.0,
        validate_only: bool = False,
    ) -> Deleted:
        """Remove a snapshot or the files of one variant that no other variant needs.

        Args:
            patience: seconds to wait for holders, with `force`.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND, VARIANT_NOT_FOUND, SNAPSHOT_PINNED, SNAPSHOT_BUSY, ETAG_MISMATCH, DISK_FAULT.
        """
        snapshot = await self.get(name)
        if etag and etag != snapshot.etag:
            raise Fault(Reason.ETAG_MISMATCH, f"{name} has changed meanwhile: read it again.")
        paths = _only_of(snapshot, variant) if variant else None
        key = (snapshot.repo, snapshot.commit)
        if validate_only:
            if not force and (held := self.pins.of(*key, paths)):
                raise pinned(*key, held)
            return Deleted(removal=await self._in_thread(partial(self._plan, key, paths)), holders=())
        self.pins.close(key)
        try:
            holders = await self._released(key, paths, patience if force else 0.0)
            return Deleted(removal=await self._delete(key, paths), holders=holders)
        finally:
            self.pins.open(key)

    async def prune(self, rules: Rules, *, validate_only: bool) -> Plan:
        """Remove what the rules say and partial files that nobody wants; or only say what would go."""
        await self.rescan()
        abandoned = await self._in_thread(partial(self._abandoned, delete=not validate_only))
        plan = await self._in_thread(partial(self._plan_prune, rules))
        items = list(plan.items)
        if not validate_only:
            items = [done for item in items if (done := await self._prune_one(item))]
        return Plan(items=(*abandoned, *items), pinned_count=plan.pinned_count)

    async def empty_trash(self) -> None:
        """Unlink what was deleted and whose grace is over."""
        for contents in await to_thread.run_sync(self.index.candidates):
            await to_thread.run_sync(self._empty, contents, self._now() - self.settings.grace)

    def _hold(self, hold: Hold, now: float) -> tuple[Pin, tuple[FileStanding, ...]]:
        with self._locks.holding(hold.repo):
            snapshot = self.index.find(hold.repo, hold.revision)
            files = held_files(snapshot, hold.selection)
            covered = () if hold.selection is None else tuple(it.file.path for it in files)
            pin = self.pins.take(
                snapshot.repo,
                snapshot.commit,
                holder=hold.holder,
                claim=hold.claim,
                paths=covered,
                now=now,
                ttl=hold.ttl,
            )
            keep_off(self.shelf, snapshot.repo, snapshot.commit)
            self.index.set_used((snapshot.repo, snapshot.commit), now)
        return pin, files

    async def _released(self, key: Key, paths: frozenset[str] | None, patience: float) -> tuple[str, ...]:
        """Return when nobody holds it; ask those who do, if there is time to wait for them."""
        asked: dict[str, Pin] = {}
        with anyio.move_on_after(patience):
            while held := self.pins.of(*key, paths):
                if not patience:
                    raise pinned(*key, held)
                unpinned = self._unpinned
                asked |= {pin.id: pin for pin in held}
                await self._ask(held, wanted=True)
                await unpinned.wait()
        if held := self.pins.of(*key, paths):
            with CancelScope(shield=True):
                await self._ask(held, wanted=False)
            raise pinned(*key, held)
        return tuple(sorted({pin.holder for pin in asked.values()}))

    async def _ask(self, pins: Sequence[Pin], *, wanted: bool) -> None:
        async with self._changing:
            for pin in self.pins.request_release(pins, wanted=wanted):
                self._listener.pin(pin)

    async def _delete(self, key: Key, paths: frozenset[str] | None) -> Removal:
        async with self._changing:
            with CancelScope(shield=True):
                try:
                    removal = await self._in_thread(partial(self._remove, key, paths))
                finally:
                    await self._refresh([key[0]])
                if not self.settings.grace:
                    await to_thread.run_sync(self._empty, key[0], self._now())
        return removal

    def _plan(self, key: Key, paths: frozenset[str] | None) -> Removal:
        repo, commit = key
        if key in self._wanted.downloading():
            text = f"{repo} at {commit} is being downloaded: cancel that first, or wait for its end."
            raise Fault(Reason.SNAPSHOT_BUSY, text, retry_after=_RETRY)
        contents = read_repo(RepoPaths(self.shelf.hub, repo))
        if commit not in contents.snapshots:
            raise Fault(Reason.SNAPSHOT_NOT_FOUND, f"The cache holds no {repo} at {commit} any more.")
        return plan_removal(contents, commit, paths, self._wanted.blobs(repo))

    def _remove(self, key: Key, paths: frozenset[str] | None) -> Removal:
        repo, commit = key
        with self._locks.holding(repo):
            removal = self._plan(key, paths)
            if held := self.pins.of(repo, commit, None if removal.whole else removal.paths):
                raise pinned(repo, commit, held)
            try:
                return remove(RepoPaths(self.shelf.hub, repo), removal, self.shelf.modes, self._now())
            except OSError as error:
                raise Fault(Reason.DISK_FAULT, f"{error.filename}: {error.strerror}") from error

    def _plan_prune(self, rules: Rules) -> Plan:
        repos = [read_repo(RepoPaths(self.shelf.hub, it.repo)) for it in self.index.repos()]
        snapshots = self.index.all()
        held = {(pin.repo, pin.commit) for pin in self.pins.all()} | self._wanted.downloading()
        return plan_prune(repos, snapshots, rules, held=held, other_bytes=0, now=self._now())

    async def _prune_one(self, item: Item) -> Item | None:
        """Delete it, unless it was pinned or is gone by now."""
        assert item.commit
        key = (item.repo, item.commit)
        try:
            self.pins.close(key)
        except Fault:
            return None
        try:
            removal = await self._delete(key, None)
        except Fault as fault:
            log.info("not pruned", repo=item.repo, commit=item.commit, error=str(fault))
            return None
        finally:
            self.pins.open(key)
        return replace(item, freed_bytes=removal.freed_bytes)

    def _abandoned(self, *, delete: bool) -> list[Item]:
        """Partial files that no download has wanted for their retention, by repository."""
        items, now = [], self._now()
        for repo in self.index.candidates():
            paths = RepoPaths(self.shelf.hub, repo)
            with self._locks.holding(repo):
                found = [
                    it
                    for it in leftovers(paths, read_repo(paths), self._wanted.blobs(repo))
                    if now - it.changed >= self.settings.partial_retention
                ]
                for leftover in found if delete else ():
                    throw_away(leftover)
            if found:
                items.append(
                    Item(
                        repo=repo,
                        commit=None,
                        freed_bytes=sum(it.size for it in found),
                        reason=PruneReason.ABANDONED,
                        idle=now - max(it.changed for it in found),
                    )
                )
        return items

    def _empty(self, repo: RepoId, before: float) -> None:
        paths = RepoPaths(self.shelf.hub, repo)
        if not (paths.ingest / trash.NAME).is_dir():
            return
        with self._locks.holding(repo):
            try:
                if not trash.empty(paths, before) and not self._wanted.blobs(repo):
                    trash.remove_if_empty(paths)
            except OSError as error:  # it stays, and is tried again
                log.warning("the trash cannot be emptied", repo=repo, error=str(error))

    async def _expire(self) -> None:
        async with self._changing:
            with CancelScope(shield=True):
                await self._ended(await self._in_thread(partial(self.pins.expire, self._now())))

    async def _ended(self, pins: Sequence[Pin]) -> None:
        if not pins:
            return
        for pin in pins:
            self._listener.pin(pin, ended=True)
        unpinned, self._unpinned = self._unpinned, Event()
        unpinned.set()
        await self._refresh({pin.repo for pin in pins}, anew=True)

    async def _refresh(self, repos: Collection[RepoId], *, anew: bool = False) -> None:
        """Within `changing`. Pins on what another program took are ended."""
        try:
            changes = await self._in_thread(partial(self.index.refresh, repos, anew=anew))
        except OSError as error:
            raise Fault(Reason.DISK_FAULT, f"The cache cannot be read: {error}") from error
        for change in changes:
            self._listener.snapshot(change)
        gone = [change.before for change in changes if change.now is None and change.before]
        for snapshot in gone:
            await self._ended(await self._in_thread(partial(self.pins.drop, snapshot.repo, snapshot.commit)))

    async def _repeat(self, interval: float, act: Callable[[], object]) -> None:
        while True:
            await self._clock.sleep(interval)
            try:
                await act()  # type: ignore[misc]
            except Fault as fault:
                log.warning("the cache could not be looked after", error=str(fault))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._thread)

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _only_of(snapshot: Snapshot, name: str) -> frozenset[str]:
    """The files of a variant that no other variant needs.

    Raises:
        Fault: VARIANT_NOT_FOUND.
    """
    variants = {it.name: {*it.variant.files, *it.variant.projector_files} for it in snapshot.variants}
    if name not in variants:
        text = f"{snapshot.repo} at {snapshot.commit} has no variant {name!r}. It has: {', '.join(variants) or 'none'}."
        raise Fault(Reason.VARIANT_NOT_FOUND, text, facts={"variant": name})
    others = {file.path for other, files in variants.items() if other != name for file in files}
    return frozenset({file.path for file in variants[name]} - others)
