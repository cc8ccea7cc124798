"""Puts the download engine together."""

import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from slipway_service.fault import Fault, Reason

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.owner import CacheOwner
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.staged import clear_staged
from slipway_registry.cache.symlinks import symlinks_work
from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.rate import RateBudget
from slipway_registry.jobs.attempt import Tools
from slipway_registry.jobs.clock import Clock, SystemClock
from slipway_registry.jobs.directory import locked_directory
from slipway_registry.jobs.ledger import Ledger, Listener
from slipway_registry.jobs.obtain import FetchFactory, Need, Obtainer
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.retry import Backoff, RetryPolicy
from slipway_registry.jobs.scheduler import Scheduler
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.budget import DiskBudget
from slipway_registry.transfer.choice import Fetches, Transport
from slipway_registry.transfer.engine import Fetch
from slipway_registry.transfer.hashing import OneCore
from slipway_registry.transfer.http import CONNECTIONS_PER_FILE
from slipway_registry.transfer.links import HubFile, HubLimits
from slipway_registry.transfer.persist import Patience
from slipway_registry.transfer.wire import Wire, WireSettings
from slipway_registry.transfer.xet import XetSessions, XetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Where the engine works and how hard.

    Attributes:
        state_directory: for the database; local, owned by one process.
        hub: the hub cache (`cache_roots(...).hub`).
        endpoint: the Hub, without a slash at its end.
        offline: why nothing may be fetched; empty when it may.
        modes: permissions in the cache.
        symlinks: False for real files in snapshots; None: as the cache's file system can.
        disk_reserve: bytes to leave free; None for the default.
        disk_threads: so many surveys and publications at once.
    """

    state_directory: Path
    hub: Path
    endpoint: str
    offline: str = ""
    modes: Modes = field(default_factory=Modes.from_umask)
    symlinks: bool | None = None
    disk_reserve: int | None = None
    transport: Transport = Transport.AUTO
    connections_per_file: int = CONNECTIONS_PER_FILE
    disk_threads: int = 4
    wire: WireSettings = field(default_factory=WireSettings)
    xet: XetSettings = field(default_factory=XetSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    policy: RetryPolicy = field(default_factory=RetryPolicy)


L = TypeVar("L", bound=Listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Generic[L]):
    """The parts that the rest of the registry needs."""

    listener: L
    scheduler: Scheduler
    store: Store
    shelf: BlobShelf
    publisher: Publisher
    locks: RepoLocks
    budget: DiskBudget
    cache_id: str


@asynccontextmanager
async def download_engine(
    settings: EngineSettings,
    *,
    credential: Callable[[], Credential],
    quota: RateBudget,
    listener: Callable[[Store], L],
    clock: Clock | None = None,
    boot: uuid.UUID | None = None,
) -> AsyncIterator[Engine[L]]:
    """The engine, at work until the body ends; then drained and closed.

    Args:
        credential: the registry's own (`Credentials.service`).
        quota: the Hub's, shared with the gateway.
        listener: makes the listener; the store it is given tells the log's epoch, head and history.
        boot: this boot of the machine, where it is not the kernel's to say.

    Raises:
        Fault: FAILED_PRECONDITION-like reasons when another registry has the state directory or the cache.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(locked_directory(settings.state_directory))
        store = await to_thread.run_sync(Store.in_directory, settings.state_directory, boot)
        stack.push_async_callback(to_thread.run_sync, store.close)
        owner = stack.enter_context(CacheOwner.taking(settings.hub, store.registry_id, settings.modes))
        await to_thread.run_sync(clear_staged, settings.hub)
        wire = Wire(settings.wire)
        stack.callback(wire.close)
        shelf = BlobShelf(settings.hub, settings.modes)
        locks = RepoLocks()
        links = settings.symlinks
        if links is None:
            links = await to_thread.run_sync(symlinks_work, settings.hub / ".locks")
        budget = DiskBudget(settings.hub, reserve=settings.disk_reserve)
        tools = Tools(
            store=store,
            shelf=shelf,
            publisher=Publisher(shelf, locks, symlinks=links),
            obtainer=Obtainer(store, shelf, fetch_factory(settings, wire, quota), core=OneCore(), boot=boot),
            budget=budget,
            policy=settings.policy,
            disk=CapacityLimiter(settings.disk_threads),
        )
        told = await to_thread.run_sync(listener, store)
        ledger = Ledger(store, told, clock or SystemClock())
        scheduler = Scheduler(tools, ledger, credential=credential, settings=settings.queue)
        await stack.enter_async_context(scheduler.running())
        yield Engine(
            listener=told,
            scheduler=scheduler,
            store=store,
            shelf=shelf,
            publisher=tools.publisher,
            locks=locks,
            budget=budget,
            cache_id=owner.cache_id,
        )


def fetch_factory(settings: EngineSettings, wire: Wire, quota: RateBudget) -> FetchFactory:
    """How files are fetched under these settings."""
    policy = settings.policy
    backoff = Backoff(policy.part_base, policy.part_cap, policy.part_tries, random.random)
    fetches = Fetches(
        wire=wire,
        limits=HubLimits(quota),
        patience=Patience(backoff, policy.part_patience),
        sessions=XetSessions(settings.xet),
        transport=settings.transport,
        connections=settings.connections_per_file,
    )

    def fetch(need: Need) -> Fetch:
        if settings.offline:
            raise Fault(Reason.OFFLINE, f"Offline mode is on ({settings.offline}) and {need.file.path} is not cached.")
        file = HubFile(endpoint=settings.endpoint, repo=need.repo, commit=need.commit, path=need.file.path)
        size, xet_hash = need.file.size_bytes, need.file.xet_hash
        return fetches.fetch(file, size, xet_hash, need.credential, mismatches=need.mismatches)

    return fetch
