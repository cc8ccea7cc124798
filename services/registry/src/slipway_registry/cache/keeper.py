"""The cache's books, kept from one event loop: every change of snapshots and pins goes through here, in one order."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import structlog
from anyio import CancelScope, CapacityLimiter, Event, Lock, to_thread
from anyio.abc import TaskGroup
from slipway_service.fault import Fault
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import VariantSelection, select

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.hold import Hold, held_files, keep_off
from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.listener import Listener
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.records import CacheRecords
from slipway_registry.cache.scan import read_repo
from slipway_registry.cache.snapshot import FileStanding, Snapshot
from slipway_registry.cache.wanted import Wanted
from slipway_registry.jobs.clock import Clock
from slipway_registry.transfer.errors import DiskFull, disk_errors

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Repositories looked at before others get their turn: some milliseconds on a local disk. A close look is a `stat` for
# each of their files, of which there are tens.
_CHUNK = 64
_CLOSE_CHUNK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Intervals and bounds, in seconds and bytes.

    Attributes:
        rescan_interval: how often to look what other tools have done to the cache; a look is nine `stat` calls for a
            repository.
        content_interval: how often to look whether somebody has written into contents, which changes no directory: a
            `stat` for each file of the cache, 0.1 s for 20,000 of them. What is asked for by name or pinned is looked
            at then and there.
        expiry_interval: how often pins are looked at.
        grace: how long what was deleted is kept for readers that have it open; 0 on a local disk, where open files
            stay readable anyway.
        partial_retention: how long partial files are kept that no download wants.
        quota: what pruning keeps to; None for no quota.
    """

    rescan_interval: float = 10.0
    content_interval: float = 300.0
    expiry_interval: float = 1.0
    grace: float = 0.0
    partial_retention: float = 7 * 86_400.0
    quota: int | None = None


class Keeper:
    """Create it, enter `running()`, then call the rest from the same event loop.

    Attributes:
        changing: held while anything changes; `refresh_held` and `ended_held` are for those who hold it.
        unpinned: set, and replaced, whenever pins end or a holder says that one will not.
    """

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
        self.locks = locks
        self.wanted = wanted
        self.clock = clock
        self.settings = settings
        self.changing = Lock()
        self.unpinned = Event()
        self._listener = listener
        self._thread = CapacityLimiter(1)
        self._entering = 0
        self._entered = Event()
        self._tasks: TaskGroup

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Keeper"]:
        """Read the cache, then keep up with it until the body ends."""
        await self.rescan()
        self._listener.begin(self.index.all(), self.pins.all())
        await self._listener.settle()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self.repeat, self.settings.rescan_interval, self.rescan)
            tasks.start_soon(self.repeat, self.settings.content_interval, partial(self.rescan, closely=True))
            tasks.start_soon(self.repeat, self.settings.expiry_interval, self.expire)
            yield self
            tasks.cancel_scope.cancel()

    async def rescan(self, *, closely: bool = False) -> None:
        """Look what has changed in the whole cache; `closely` finds what was written into contents too."""
        repos = await to_thread.run_sync(self.index.folders)
        chunk = _CLOSE_CHUNK if closely else _CHUNK
        for start in range(0, len(repos), chunk):
            await self.refresh(repos[start : start + chunk], closely=closely)

    async def refresh(self, repos: Collection[RepoId], *, anew: bool = False, closely: bool = False) -> None:
        """Look what has changed in these repositories, and tell; the options are `CacheIndex.refresh`'s."""
        async with self.changing:
            await self.refresh_held(repos, anew=anew, closely=closely)

    async def get(self, name: str) -> Snapshot:
        """A snapshot as it is on the disk at this moment.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND.
        """
        await self.refresh([self.index.get(name).repo], closely=True)
        return self.index.get(name)

    async def find(self, repo: RepoId, revision: Revision) -> Snapshot:
        """The same by repository and commit or ref."""
        await self.refresh([repo], closely=True)
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
        contents = await self.in_thread(partial(read_repo, RepoPaths(self.shelf.hub, snapshot.repo)))
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

    async def used(self, repo: RepoId, commit: Commit) -> None:
        """A download of it has succeeded."""
        async with self.changing:
            await self.refresh_held([repo])
            await self.in_thread(partial(self.index.set_used, (repo, commit), self.now()))
            await self.refresh_held([repo], anew=True)

    async def pin(self, hold: Hold) -> tuple[Pin, Snapshot, tuple[FileStanding, ...]]:
        """Take or renew a pin.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND, SNAPSHOT_INCOMPLETE, VARIANT_NOT_FOUND, SNAPSHOT_BUSY, DISK_FULL, DISK_FAULT.
        """
        async with self.changing:
            await self.refresh_held([hold.repo], closely=True)
            with CancelScope(shield=True):
                pin, files = await self.in_thread(partial(self._hold, hold, self.now()))
                self._listener.pin(pin)
                if pin.refusal:
                    self._tell_unpinned()
                await self.refresh_held([hold.repo], anew=True)
        return pin, self.index.get(pin.snapshot), files

    async def unpin(self, pin_id: str) -> None:
        """End a pin.

        Raises:
            Fault: PIN_NOT_FOUND.
        """
        async with self.changing:
            with CancelScope(shield=True):
                await self.ended_held([await self.in_thread(partial(self.pins.end, pin_id))])

    async def ask(self, pins: Collection[Pin], *, wanted: bool) -> None:
        """Ask holders to let go, or no longer."""
        async with self.changing:
            for pin in self.pins.request_release(pins, wanted=wanted):
                self._listener.pin(pin)
            await self._listener.settle()

    async def expire(self) -> None:
        """End the pins whose time is over."""
        async with self.changing:
            with CancelScope(shield=True):
                await self.ended_held(await self.in_thread(partial(self.pins.expire, self.now())))
                await self._listener.settle()

    async def refresh_held(self, repos: Collection[RepoId], *, anew: bool = False, closely: bool = False) -> None:
        """Within `changing`. Pins on what another program took are ended."""
        with CancelScope(shield=True):  # what the index has seen is told: it sees it once
            changes = await self.in_thread(partial(self.index.refresh, repos, anew=anew, closely=closely))
            for change in changes:
                self._listener.snapshot(change)
            gone = [it.before for it in changes if it.before and it.now is None]
            for snapshot in [it for it in gone if not self.index.unreadable(it.repo)]:
                lost = await self.in_thread(partial(self.pins.drop, snapshot.repo, snapshot.commit))
                for pin in lost:
                    text = "another program deleted a snapshot that was pinned: its pin has ended"
                    log.warning(text, snapshot=snapshot.name, repo=pin.repo, commit=pin.commit, holder=pin.holder)
                await self.ended_held(lost)
            await self._listener.settle()

    async def ended_held(self, pins: Sequence[Pin]) -> None:
        """Within `changing`: tell that pins have ended."""
        if not pins:
            return
        for pin in pins:
            self._listener.pin(pin, ended=True)
        self._tell_unpinned()
        await self.refresh_held({pin.repo for pin in pins}, anew=True)

    async def repeat(self, interval: float, act: Callable[[], Awaitable[None]]) -> None:
        """Do it every `interval` seconds, for ever; an error is logged, and what was to be done waits for the next."""
        while True:
            await self.clock.sleep(interval)
            try:
                await act()
            except (Fault, OSError) as error:
                log.warning("the cache could not be looked after", error=str(error))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do it in the thread that reads and writes the books."""
        return await to_thread.run_sync(work, limiter=self._thread)

    def now(self) -> float:
        """Seconds since 1970."""
        return self.clock.now().timestamp()

    def _tell_unpinned(self) -> None:
        unpinned, self.unpinned = self.unpinned, Event()
        unpinned.set()

    def _hold(self, hold: Hold, now: float) -> tuple[Pin, tuple[FileStanding, ...]]:
        with self.locks.holding(hold.repo):
            snapshot = self.index.find(hold.repo, hold.revision)
            files = held_files(snapshot, hold.selection)
            covered = () if hold.selection is None else tuple(it.file.path for it in files)
            try:
                with disk_errors(RepoPaths(self.shelf.hub, snapshot.repo).root):
                    keep_off(self.shelf, snapshot.repo, snapshot.commit)
            except DiskFull as full:
                raise full.fault("Nothing was pinned.") from full
            pin = self.pins.take(
                snapshot.repo,
                snapshot.commit,
                holder=hold.holder,
                claim=hold.claim,
                paths=covered,
                now=now,
                ttl=hold.ttl,
                refusal=hold.refusal,
            )
            self.index.set_used((snapshot.repo, snapshot.commit), now)
        return pin, files

    async def _enter(self, repo: RepoId, commit: Commit) -> None:
        try:
            await self.used(repo, commit)
        except Fault as fault:
            log.warning("a download is entered when the cache is looked at next", repo=repo, error=str(fault))
        finally:
            self._entering -= 1
            entered, self._entered = self._entered, Event()
            entered.set()
