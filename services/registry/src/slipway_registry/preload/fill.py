"""Has one target in the cache: resolved to a commit, downloaded and verified by the engine, kept if so wished."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import to_thread
from slipway_service.fault import Fault, Link, Reason
from slipway_service.weights.cache_paths import snapshot_path
from slipway_service.weights.names import Commit, Revision
from slipway_service.weights.selection import SelectedFiles, select
from slipway_service.weights.variants import find_variants

from slipway_registry.cache.hold import Hold
from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.names import blob_of
from slipway_registry.cache.pin import MAX_TEXT
from slipway_registry.hub.credentials import Credential, Credentials
from slipway_registry.hub.listing import RepoTree
from slipway_registry.hub.repositories import Repositories
from slipway_registry.jobs.assemble import Engine
from slipway_registry.jobs.clock import Clock
from slipway_registry.jobs.records import Download, Failure, State
from slipway_registry.jobs.requests import CreateRequest, recorded
from slipway_registry.preload.following import Following
from slipway_registry.preload.report import Report
from slipway_registry.preload.targets import Target
from slipway_registry.transfer.budget import Shortage

T = TypeVar("T")

HOLDER = "preload"
"""Who holds what is kept; the claim is the target's name."""

PASSING = frozenset({Reason.HUB_UNREACHABLE, Reason.HUB_ERROR, Reason.HUB_RATE_LIMITED})

_PAUSE = 5.0
"""Seconds before the Hub is asked again where it does not say when: its client has asked four times by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A target that is in the cache; sizes in bytes, each content counted once.

    Attributes:
        path: the snapshot.
        fetched_bytes: what this run transferred.
        variant: the one taken; empty where the selection is not one variant.
        kept: whether it is pinned for good.
    """

    target: Target
    commit: Commit
    files: int
    size_bytes: int
    fetched_bytes: int
    path: Path
    variant: str
    kept: bool


class Filler:
    """Fills the cache of an open engine.

    Args:
        keeper: for pins; it need not run.
        patience: seconds to ask a Hub that is away, for each answer that is needed before a download begins.
        keep: pin each target without an end.
    """

    def __init__(
        self,
        engine: Engine[Following],
        repositories: Repositories,
        keeper: Keeper,
        credentials: Credentials,
        report: Report,
        clock: Clock,
        *,
        patience: float,
        keep: bool,
    ) -> None:
        self._engine = engine
        self._repositories = repositories
        self._keeper = keeper
        self._credentials = credentials
        self._report = report
        self._clock = clock
        self._patience = patience
        self._keep = keep

    async def fill(self, target: Target) -> Filled:
        """Return when all of it is there and verified.

        Raises:
            Fault: the Hub's reasons, VARIANT_NOT_FOUND, SELECTION_EMPTY, DISK_FULL, DISK_FAULT, HASH_MISMATCH …
        """
        tree = await self._patiently(target, partial(self._repositories.tree, target.repo, target.revision))
        selected = await to_thread.run_sync(_selected, tree, target)
        self._report.resolved(target, tree.commit, selected)
        before = await to_thread.run_sync(self._present, tree, selected)
        download = await self._downloaded(target, tree, selected)
        if self._keep:
            await self._keep_it(target, tree)
        progress = download.progress
        return Filled(
            target=target,
            commit=tree.commit,
            files=len(selected.files),
            size_bytes=progress.total_bytes,
            fetched_bytes=max(0, progress.done_bytes - progress.resumed_bytes - before),
            path=self._keeper.shelf.hub / snapshot_path(tree.requested, tree.commit),
            variant=selected.variant,
            kept=self._keep,
        )

    def _present(self, tree: RepoTree, selected: SelectedFiles) -> int:
        """Bytes that are there, whoever brought them and whether or not they have been hashed."""
        shelf = self._keeper.shelf
        blobs = {blob_of(file): file.size_bytes for file in selected.files}
        return sum(size for blob, size in blobs.items() if shelf.path(tree.requested, blob).exists())

    async def _patiently(self, target: Target, ask: Callable[[Credential], Awaitable[T]]) -> T:
        """What the Hub answers, asked again while it is away."""
        until = self._clock.monotonic() + self._patience
        while True:
            try:
                return await ask(self._credentials.service())
            except Fault as fault:
                pause = fault.retry_after or _PAUSE
                if fault.reason not in PASSING or self._clock.monotonic() + pause > until:
                    raise
                self._report.waits(target, fault, pause)
            await self._clock.sleep(pause)

    async def _downloaded(self, target: Target, tree: RepoTree, selected: SelectedFiles) -> Download:
        scheduler = self._engine.scheduler
        request = CreateRequest(
            repo=tree.requested,
            revision=tree.revision,
            commit=tree.commit,
            listing=tree.files,
            paths=[file.path for file in selected.files],
            selection=recorded(target.selection, selected),
        )
        if (await scheduler.preview(request)).state is not State.SUCCEEDED:
            check = partial(self._repositories.check_obtainable, tree, selected.files)
            await self._patiently(target, check)
        download, _ = await scheduler.create(request)
        if download.state is State.PAUSED:
            # A registry left it paused: by a caller, who asks for it now, or for a caller's token, which is not needed.
            await scheduler.cancel(download.id)
            download, _ = await scheduler.create(request)
        self._report.names(download, target)
        download = await self._engine.listener.end_of(download)
        if download.state is not State.SUCCEEDED:
            raise self._why(download)
        return download

    def _why(self, download: Download) -> Fault:
        if download.failure is not None:
            return _fault(download.failure)
        hub, progress = self._keeper.shelf.hub, download.progress
        stat = os.statvfs(hub)
        return Shortage(
            needed=progress.total_bytes - progress.done_bytes,
            free=stat.f_bavail * stat.f_frsize,
            reserve=self._engine.budget.reserve(stat.f_blocks * stat.f_frsize),
            path=str(hub),
            ever=True,
        ).fault()

    async def _keep_it(self, target: Target, tree: RepoTree) -> None:
        """Pin it, in place of what the same target was before."""
        hold = Hold(
            repo=tree.requested,
            revision=Revision(tree.commit),
            selection=target.selection,
            holder=HOLDER,
            claim=target.name[:MAX_TEXT],
            ttl=None,
        )
        pin, _, _ = await self._keeper.pin(hold)
        for other in self._keeper.pins.all():
            if (other.holder, other.claim) == (pin.holder, pin.claim) and other.id != pin.id:
                await self._keeper.unpin(other.id)


def _selected(tree: RepoTree, target: Target) -> SelectedFiles:
    return select(tree.files, find_variants(tree.files), target.selection)


def _fault(failure: Failure) -> Fault:
    link = Link("Ask for access here", failure.help_url) if failure.help_url else None
    return Fault(failure.reason, failure.text, facts=failure.facts, link=link)
