"""Deleting snapshots: not below their holders, not below downloads, and for good only when a grace is over."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
from anyio import CancelScope, to_thread
from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId
from slipway_service.weights.selection import VariantSelection, select

from slipway_registry.cache import trash
from slipway_registry.cache.delete import Removal, plan_removal, remove
from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.pin import Pin
from slipway_registry.cache.pins import pinned
from slipway_registry.cache.records import Key
from slipway_registry.cache.scan import read_repo
from slipway_registry.cache.snapshot import Snapshot

log = structlog.get_logger(__name__)

_RETRY = 5.0
"""Seconds after which another operation on the same repository may have ended."""

# Seconds between two looks for trash whose grace is over.
_TRASH_INTERVAL = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What a deletion did; `holders` released it first."""

    removal: Removal
    holders: tuple[str, ...]


class Remover:
    """Deletes from a cache whose books are kept. For the keeper's event loop."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._hub = keeper.shelf.hub

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Remover"]:
        """Empty the trash now and then until the body ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keeper.repeat, _TRASH_INTERVAL, self.empty_trash)
            yield self
            tasks.cancel_scope.cancel()

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
            patience: seconds to wait for holders, with `force`. An operator's keep is not waited for: it does not end
                by being asked. Nor is a holder that has said no.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND, VARIANT_NOT_FOUND, SNAPSHOT_PINNED, SNAPSHOT_BUSY, ETAG_MISMATCH, DISK_FAULT.
        """
        keeper = self._keeper
        snapshot = await keeper.get(name)
        if etag and etag != snapshot.etag:
            raise Fault(Reason.ETAG_MISMATCH, f"{name} has changed meanwhile: read it again.")
        paths = _only_of(snapshot, variant) if variant else None
        key = (snapshot.repo, snapshot.commit)
        if validate_only:
            self._check_held(key, paths, force=force)
            return Deleted(removal=await keeper.in_thread(partial(self._plan, key, paths)), holders=())
        keeper.pins.close(key)
        try:
            holders = await self._released(key, paths, patience if force else 0.0)
            return Deleted(removal=await self._delete(key, paths), holders=holders)
        finally:
            keeper.pins.open(key)

    async def delete_if_unheld(self, key: Key) -> Removal | None:
        """Remove a snapshot at once; None if it was pinned, is being downloaded, or is gone by now.

        Raises:
            Fault: DISK_FAULT, it is still there.
        """
        try:
            self._keeper.pins.close(key)
        except Fault:
            return None
        try:
            return await self._delete(key, None)
        except Fault as fault:
            log.info("not deleted", repo=key[0], commit=key[1], error=str(fault))
            if fault.reason is Reason.DISK_FAULT:
                raise
            return None
        finally:
            self._keeper.pins.open(key)

    async def empty_trash(self) -> None:
        """Unlink what was deleted and whose grace is over."""
        for repo in await to_thread.run_sync(self._keeper.index.candidates):
            await to_thread.run_sync(self._empty, repo, self._keeper.now() - self._keeper.settings.grace)

    def _check_held(self, key: Key, paths: frozenset[str] | None, *, force: bool) -> list[Pin]:
        """The pins that have to go first.

        Raises:
            Fault: SNAPSHOT_PINNED, if asking for them is not wanted, or of no use.
        """
        held = self._keeper.pins.of(*key, paths)
        firm = [pin for pin in held if pin.firm]
        if firm or (held and not force):
            raise pinned(*key, firm if force else held, by_force=force)
        return held

    async def _released(self, key: Key, paths: frozenset[str] | None, patience: float) -> tuple[str, ...]:
        """Return when nobody holds it; ask those who do, if there is time to wait for them."""
        keeper, asked = self._keeper, dict[str, Pin]()
        try:
            with anyio.move_on_after(patience):
                while held := self._check_held(key, paths, force=patience > 0):
                    unpinned = keeper.unpinned
                    asked |= {pin.id: pin for pin in held}
                    await keeper.ask(held, wanted=True)
                    await unpinned.wait()
        finally:
            # Who waited has given up, or gone: those who still hold it may keep it.
            with CancelScope(shield=True):
                await keeper.ask([it for it in keeper.pins.of(*key, paths) if it.id in asked], wanted=False)
        if held := keeper.pins.of(*key, paths):
            raise pinned(*key, held, by_force=patience > 0)
        return tuple(sorted({pin.holder for pin in asked.values()}))

    async def _delete(self, key: Key, paths: frozenset[str] | None) -> Removal:
        keeper = self._keeper
        async with keeper.changing:
            with CancelScope(shield=True):
                try:
                    removal = await keeper.in_thread(partial(self._remove, key, paths))
                finally:
                    await keeper.refresh_held([key[0]])
                if not keeper.settings.grace:
                    await to_thread.run_sync(self._empty, key[0], keeper.now())
        return removal

    def _plan(self, key: Key, paths: frozenset[str] | None) -> Removal:
        repo, commit = key
        if key in self._keeper.wanted.downloading():
            text = f"{repo} at {commit} is being downloaded or imported: cancel that first, or wait for its end."
            raise Fault(Reason.SNAPSHOT_BUSY, text, retry_after=_RETRY)
        try:
            contents = read_repo(RepoPaths(self._hub, repo))
        except OSError as error:
            raise _refused(error) from error
        if commit not in contents.snapshots:
            raise Fault(Reason.SNAPSHOT_NOT_FOUND, f"The cache holds no {repo} at {commit} any more.")
        return plan_removal(contents, commit, paths, self._keeper.wanted.blobs(repo))

    def _remove(self, key: Key, paths: frozenset[str] | None) -> Removal:
        repo, commit = key
        with self._keeper.locks.holding(repo):
            removal = self._plan(key, paths)
            if held := self._keeper.pins.of(repo, commit, None if removal.whole else removal.paths):
                raise pinned(repo, commit, held)
            try:
                return remove(
                    RepoPaths(self._hub, repo),
                    removal,
                    self._keeper.shelf.modes,
                    self._keeper.now(),
                    for_good=not self._keeper.settings.grace,
                )
            except OSError as error:
                raise _refused(error) from error

    def _empty(self, repo: RepoId, before: float) -> None:
        paths = RepoPaths(self._hub, repo)
        if not (paths.ingest / trash.NAME).is_dir():
            return
        with self._keeper.locks.holding(repo):
            try:
                wanted = self._keeper.wanted.blobs(repo)
                if not trash.empty(paths, before, wanted) and not wanted:
                    trash.remove_if_empty(paths)
            except OSError as error:  # it stays, and is tried again
                log.warning("the trash cannot be emptied", repo=repo, error=str(error))


def _refused(error: OSError) -> Fault:
    return Fault(Reason.DISK_FAULT, f"{error.filename}: {error.strerror}")


def _only_of(snapshot: Snapshot, name: str) -> frozenset[str]:
    """The files of a variant that no other variant needs which the cache has something of.

    Raises:
        Fault: VARIANT_NOT_FOUND.
    """
    name = select(snapshot.listing, [it.variant for it in snapshot.variants], VariantSelection(name)).variant
    variants = {it.name: {*it.variant.files, *it.variant.projector_files} for it in snapshot.variants}
    linked = {it.file.path for it in snapshot.files if it.inode is not None}
    others = {
        file.path
        for it in snapshot.variants
        if it.name != name and any(file.path in linked for file in it.variant.files)
        for file in variants[it.name]
    }
    return frozenset({file.path for file in variants[name]} - others)
