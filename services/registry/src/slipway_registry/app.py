"""Puts the registry together: the Hub's gateway, the download engine, and the services over them."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from anyio import to_thread
from slipway_service.broadcast import Broadcast
from slipway_service.lifecycle import Host
from slipway_service.metrics import WatchMetrics

from slipway_registry.cache.keeper import Keeper, KeeperSettings
from slipway_registry.cache.remover import Remover
from slipway_registry.cache.scrub import Scrub, ScrubSettings
from slipway_registry.config import RegistrySettings
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repositories import Repositories
from slipway_registry.jobs.assemble import Engine
from slipway_registry.jobs.directory import is_remote
from slipway_registry.jobs.records import Download
from slipway_registry.metrics import CacheMetrics
from slipway_registry.opening import keeper_of, opened
from slipway_registry.rpc.catalog import CatalogService
from slipway_registry.rpc.download_log import DownloadLog
from slipway_registry.rpc.downloads import DownloadService
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_registry.rpc.snapshot_streams import SnapshotStreams
from slipway_registry.rpc.snapshots import SnapshotService

# Seconds: readers on other hosts have closed a model that was stopped by then.
_REMOTE_GRACE = 300.0


@asynccontextmanager
async def registry(
    host: Host, settings: RegistrySettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """The registry at work on a bound host; drained and closed at the end.

    Args:
        host: where its services are offered.
        settings: its own options.
        environment: huggingface_hub's: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE …

    Raises:
        StartError: the cache or the state directory is another registry's, or the environment is wrong.
    """
    async with (
        opened(settings, environment, listener=partial(DownloadLog, retention=settings.retention)) as it,
        _keeping(it.engine, it.hub, settings) as (log_of_cache, keeper),
        Remover(keeper).running() as remover,
        _scrubbing(host, it.engine, keeper, settings),
    ):
        engine, gateway, credentials = it.engine, it.gateway, it.credentials
        metadata = HubMetadata(gateway)
        repositories = Repositories(gateway, metadata, keeper, it.hub)
        watches = WatchMetrics(host.registry)
        broadcast = Broadcast(engine.listener.log, metrics=watches.of("downloads"))
        host.on_drain(broadcast.drain)
        CatalogService(gateway, metadata, repositories, credentials).offer(host)
        DownloadService(
            engine.scheduler, engine.store, repositories, credentials, broadcast, retention=settings.retention
        ).offer(host)
        SnapshotService(keeper, remover, log_of_cache, engine.budget, watches, engine.cache_id).offer(host)
        streams = SnapshotStreams(
            keeper,
            log_of_cache,
            scheduler=engine.scheduler,
            downloads=broadcast,
            store=engine.store,
            budget=engine.budget,
            publisher=engine.publisher,
            repositories=repositories,
            credentials=credentials,
            export_roots=settings.export_roots,
        )
        await streams.clear_interrupted()
        streams.offer(host)
        yield


def _scrubbing(
    host: Host, engine: Engine[DownloadLog], keeper: Keeper, settings: RegistrySettings
) -> AbstractAsyncContextManager[Scrub]:
    """The cache's files are hashed again now and then while it is entered."""
    wanted = ScrubSettings(interval=settings.scrub_interval, rate=settings.scrub_rate)
    metrics = CacheMetrics(host.registry, damaged=lambda: sum(len(it.damaged) for it in keeper.index.all()))
    return Scrub(keeper, engine.store, wanted, metrics).running()


@asynccontextmanager
async def _keeping(
    engine: Engine[DownloadLog], hub: Path, settings: RegistrySettings
) -> AsyncIterator[tuple[SnapshotLog, Keeper]]:
    """The cache's books, kept while the body runs; downloads that succeed are entered at once."""
    grace = settings.delete_grace
    bounds = KeeperSettings(
        rescan_interval=settings.rescan_interval,
        grace=grace if grace is not None else _REMOTE_GRACE * is_remote(hub),
        partial_retention=settings.partial_retention,
        quota=settings.cache_quota,
    )
    keeper, log_of_cache = await to_thread.run_sync(keeper_of, engine, hub, bounds, SnapshotLog)
    async with keeper.running():

        def enter(download: Download) -> None:
            keeper.enter(download.repo, download.commit)

        engine.listener.on_success = enter
        yield log_of_cache, keeper
