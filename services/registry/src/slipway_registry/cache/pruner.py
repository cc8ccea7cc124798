"""Pruning: what a prune's rules take from the cache, and partial files that nobody wants any more."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog
from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId

from slipway_registry.cache.keeper import Keeper
from slipway_registry.cache.partials import Leftover, leftovers, partial_bytes, throw_away
from slipway_registry.cache.prune import Item, Plan, PruneReason, Rules, plan_prune
from slipway_registry.cache.remover import Remover
from slipway_registry.cache.scan import RepoContents, read_repo
from slipway_registry.cache.weigh import Scales

log = structlog.get_logger(__name__)

Abandoned = dict[RepoId, list[Leftover]]

_CONTENT_GRACE = 3600.0
"""Seconds for which a quota spares a content that nothing links: who downloads links it within seconds."""


class Pruner:
    """Prunes a cache whose books are kept. For the keeper's event loop."""

    def __init__(self, keeper: Keeper, remover: Remover) -> None:
        self._keeper = keeper
        self._remover = remover

    async def prune(self, rules: Rules, *, validate_only: bool) -> Plan:
        """Remove what belongs to no snapshot and nobody wants, then what the rules say; or only say what would go.

        The log says of each thing that it is gone, for callers that do not wait for the answer.

        Raises:
            Fault: DISK_FAULT, something cannot be removed; the rest has been.
        """
        keeper = self._keeper
        await keeper.rescan()
        abandoned = await keeper.in_thread(partial(self._abandoned, rules))
        plan = await keeper.in_thread(partial(self._plan, rules, abandoned))
        items = list(plan.items)
        if not validate_only:
            await keeper.in_thread(partial(self._throw_away, abandoned))
            for item in self._items(abandoned):
                _tell(item)
            refused: list[Fault] = []
            items = [done for item in items if (done := await self._take(item, refused))]
            if refused:
                text = f"{len(refused)} of the snapshots cannot be removed ({len(items)} were): {refused[0]}"
                raise Fault(Reason.DISK_FAULT, text) from refused[0]
        return Plan(items=(*self._items(abandoned), *items), pinned_count=plan.pinned_count)

    def _plan(self, rules: Rules, abandoned: Abandoned) -> Plan:
        """What goes when what is abandoned has gone; partial files that stay count against the quota too."""
        keeper = self._keeper
        repos, partials = self._left(abandoned)
        read = {it.repo for it in repos}
        return plan_prune(
            repos,
            [it for it in keeper.index.all() if it.repo in read],
            rules,
            held={(pin.repo, pin.commit) for pin in keeper.pins.all()} | keeper.wanted.downloading(),
            wanted={repo: keeper.wanted.blobs(repo) for repo in keeper.wanted.repos()},
            other_bytes=partials,
            now=keeper.now(),
        )

    def _left(self, abandoned: Abandoned) -> tuple[list[RepoContents], int]:
        """The readable repositories without what is abandoned, and the bytes of the partial files that stay."""
        keeper, repos, partials = self._keeper, [], 0
        for repo in keeper.index.candidates():
            paths = RepoPaths(keeper.shelf.hub, repo)
            if (contents := self._read(paths)) is None:
                continue
            gone = {it.path: it for it in abandoned.get(repo, ())}
            blobs = {name: blob for name, blob in contents.blobs.items() if paths.blobs / name not in gone}
            repos.append(replace(contents, blobs=blobs))
            partials += partial_bytes(paths) - sum(it.size for it in gone.values() if it.path.parent == paths.ingest)
        return repos, partials

    def _read(self, paths: RepoPaths) -> RepoContents | None:
        """The repository at this moment; None where it cannot be read: nothing of it is pruned."""
        with contextlib.suppress(OSError):
            return read_repo(paths)
        return None

    def _leftovers(self, paths: RepoPaths) -> list[Leftover]:
        contents = self._read(paths)
        return list(leftovers(paths, contents, self._keeper.wanted.blobs(paths.repo))) if contents else []

    async def _take(self, item: Item, refused: list[Fault]) -> Item | None:
        assert item.commit
        try:
            removal = await self._remover.delete_if_unheld((item.repo, item.commit))
        except Fault as fault:
            refused.append(fault)
            return None
        if removal is None:
            return None
        _tell(done := replace(item, freed_bytes=removal.freed_bytes))
        return done

    def _abandoned(self, rules: Rules) -> Abandoned:
        """What no snapshot has and no download has wanted for its retention.

        Where that does not keep to the quota, contents that nothing links go before any snapshot does.
        """
        retention = self._keeper.settings.partial_retention
        found = self._unwanted(lambda _: retention)
        if rules.quota is None:
            return found
        repos, partials = self._left(found)
        if Scales(repos).total + partials <= rules.quota:
            return found
        return self._unwanted(lambda it: min(retention, _CONTENT_GRACE) if it.content else retention)

    def _unwanted(self, retention: Callable[[Leftover], float]) -> Abandoned:
        keeper, found, now = self._keeper, {}, self._keeper.now()
        for repo in keeper.index.candidates():
            paths = RepoPaths(keeper.shelf.hub, repo)
            with keeper.locks.holding(repo):
                left = self._leftovers(paths)
                if old := [it for it in left if now - it.changed >= retention(it)]:
                    found[repo] = old
        return found

    def _throw_away(self, abandoned: Abandoned) -> None:
        """Delete it, but for what has come to be wanted meanwhile; `abandoned` then has what was deleted."""
        for repo, old in list(abandoned.items()):
            paths = RepoPaths(self._keeper.shelf.hub, repo)
            with self._keeper.locks.holding(repo):
                still = {it.path for it in self._leftovers(paths)}
                abandoned[repo] = [it for it in old if it.path in still]
                for leftover in abandoned[repo]:
                    throw_away(leftover)

    def _items(self, abandoned: Abandoned) -> list[Item]:
        now = self._keeper.now()
        return [
            Item(
                repo=repo,
                commit=None,
                freed_bytes=sum(it.size for it in old),
                reason=PruneReason.ABANDONED,
                idle=now - max(it.changed for it in old),
            )
            for repo, old in abandoned.items()
            if old
        ]


def _tell(item: Item) -> None:
    log.info(
        "pruned",
        repo=item.repo,
        commit=item.commit,
        freed_bytes=item.freed_bytes,
        reason=item.reason,
        idle_seconds=round(item.idle),
    )
