"""Repositories from the Hub, or from the cache where the Hub is not asked (offline) or not reached."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio.to_thread
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.memory import DeviceMemory
from slipway_service.weights.names import RepoId, Revision

from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.hub.cached import cached_repository, cached_tree
from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import DEFAULT_RETRY_AFTER, Subject
from slipway_registry.hub.gateway import HubGateway, offline_fault
from slipway_registry.hub.listing import RepoTree
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repository import HubRepositories, Repository

AWAY = frozenset({Reason.OFFLINE, Reason.HUB_UNREACHABLE, Reason.HUB_ERROR})
"""Faults for which the cache answers, as huggingface_hub does: no transport, or an error of the Hub's own (5xx). What
the Hub denies, does not have, or rations is its answer."""

_SHOWN = 10
"""So many missing files are named."""


class Snapshots(Protocol):
    """The cache's books."""

    async def find(self, repo: RepoId, revision: Revision) -> Snapshot:
        """A snapshot by commit or ref. Raises Fault: SNAPSHOT_NOT_FOUND."""
        ...


class Repositories:
    """Asks the Hub, and the cache in its place. A branch is then where the cache last saw it.

    Args:
        hub: the hub cache.
    """

    def __init__(self, gateway: HubGateway, metadata: HubMetadata, snapshots: Snapshots, hub: Path) -> None:
        self._offline = gateway.settings.offline
        self._metadata = metadata
        self._online = HubRepositories(gateway, metadata)
        self._snapshots = snapshots
        self._hub = hub

    async def get(
        self,
        repo: RepoId,
        revision: Revision,
        credential: Credential,
        *,
        devices: Sequence[DeviceMemory] = (),
        context_tokens: int = 0,
    ) -> Repository:
        """A repository at a revision; with devices, whether each variant fits on each.

        Raises:
            Fault: as `HubMetadata.tree`.
        """
        wanted = {"devices": devices, "context_tokens": context_tokens}
        try:
            return await self._online.get(repo, revision, credential, devices=devices, context_tokens=context_tokens)
        except Fault as fault:
            snapshot = await self._instead_of(fault, repo, revision)
        describe = partial(cached_repository, snapshot, revision, self._hub, **wanted)  # type: ignore[arg-type]
        return await anyio.to_thread.run_sync(describe)

    async def tree(self, repo: RepoId, revision: Revision, credential: Credential) -> RepoTree:
        """Every file of the commit that the revision names.

        Raises:
            Fault: as `HubMetadata.tree`.
        """
        try:
            return await self._metadata.tree(repo, revision, credential)
        except Fault as fault:
            snapshot = await self._instead_of(fault, repo, revision)
            if not snapshot.listed:
                raise  # what other files the commit has is not known
        return cached_tree(snapshot, repo, revision)

    async def check_obtainable(self, tree: RepoTree, files: Iterable[RepoFile], credential: Credential) -> None:
        """Whether these files of a tree may be had now: of the Hub, or because the cache has all of them.

        Raises:
            Fault: REPO_GATED, REPO_NOT_FOUND, and the Hub's other reasons; OFFLINE, HUB_UNREACHABLE with what is
                missing, where the tree is from the cache.
        """
        away: Fault | None = None
        if not tree.from_cache:
            try:
                await self._metadata.check_access(tree.repo, credential)
                return
            except Fault as fault:
                if fault.reason not in AWAY:
                    raise
                away = fault
        if missing := await self._missing(tree, files):
            raise away or self._lacking(tree, missing)

    async def _instead_of(self, fault: Fault, repo: RepoId, revision: Revision) -> Snapshot:
        """What the cache has; the Hub's fault where that is no reason to ask the cache, or it has nothing."""
        if fault.reason not in AWAY:
            raise fault
        try:
            return await self._snapshots.find(repo, revision)
        except Fault:
            raise fault from None

    async def _missing(self, tree: RepoTree, files: Iterable[RepoFile]) -> list[str]:
        try:
            snapshot = await self._snapshots.find(tree.requested, Revision(tree.commit))
            sound = snapshot.sound
        except Fault:
            sound = frozenset()
        return [file.path for file in files if file.path not in sound]

    def _lacking(self, tree: RepoTree, missing: Sequence[str]) -> Fault:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        lacks = f"the cache lacks {', '.join(missing[:_SHOWN])}{more}"
        subject = Subject(repo=tree.requested, revision=tree.revision)
        if self._offline:
            return offline_fault(self._offline, subject, lacks)
        text = f"The Hub could not be reached, and {lacks}."
        return Fault(Reason.HUB_UNREACHABLE, text, facts=subject.facts, retry_after=DEFAULT_RETRY_AFTER)
