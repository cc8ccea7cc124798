"""Puts the registry together: the Hub's gateway, the download engine, and the services over them."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog
from anyio import to_thread
from slipway_service.broadcast import Broadcast
from slipway_service.lifecycle import Host
from slipway_service.metrics import WatchMetrics
from slipway_service.state_dir import StartError
from slipway_service.weights.cache_paths import cache_roots
from sqlalchemy.exc import DatabaseError

from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.keeper import Keeper, KeeperSettings
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.owner import CacheTakenError
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.records import CacheRecords
from slipway_registry.cache.wanted import Wanted
from slipway_registry.config import RegistrySettings
from slipway_registry.hub.credentials import Credentials
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repository import HubRepositories
from slipway_registry.hub.settings import HubSettings, is_true
from slipway_registry.jobs.assemble import Engine, EngineSettings, download_engine
from slipway_registry.jobs.clock import SystemClock
from slipway_registry.jobs.directory import DirectoryTakenError, is_remote
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.records import Download
from slipway_registry.rpc.catalog import CatalogService
from slipway_registry.rpc.download_log import DownloadLog
from slipway_registry.rpc.downloads import DownloadService
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_registry.rpc.snapshot_streams import SnapshotStreams
from slipway_registry.rpc.snapshots import SnapshotService
from slipway_registry.transfer.choice import Transport

# Seconds: readers on other hosts have closed a model that was stopped by then.
_REMOTE_GRACE = 300.0

log = structlog.stdlib.get_logger("slipway.registry")


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
    roots = cache_roots(environment)
    for warning in roots.warnings:
        log.warning(warning)
    hub = _hub_settings(settings, environment)
    credentials = Credentials.from_environment(environment, roots.home)
    gateway = HubGateway(hub)
    metadata = HubMetadata(gateway)
    engine_settings = _engine_settings(settings, hub, roots.hub, environment)
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(
                download_engine(
                    engine_settings, credential=credentials.service, quota=gateway.budget, listener=DownloadLog
                )
            )
        except (CacheTakenError, DirectoryTakenError) as error:
            raise StartError(str(error)) from None
        except OSError as error:
            where = error.filename or roots.hub
            raise StartError(
                f"cannot use {where}: {error.strerror}; HF_HOME and --state-dir say where to work"
            ) from None
        except DatabaseError as error:
            where = settings.state_dir / "registry.sqlite3"
            raise StartError(
                f"cannot use the database {where}: {error.orig}. Move it away to begin with none"
            ) from None
        log.info("cache", directory=str(roots.hub), id=engine.cache_id, hub=hub.endpoint, offline=hub.offline or None)
        broadcast = Broadcast(engine.listener.log, metrics=WatchMetrics(host.registry, log="downloads"))
        host.on_drain(broadcast.drain)
        CatalogService(gateway, metadata, HubRepositories(gateway, metadata), credentials).offer(host)
        downloads = DownloadService(engine.scheduler, engine.store, metadata, credentials, broadcast)
        downloads.offer(host)
        log_of_cache, keeper = await stack.enter_async_context(_keeping(engine, roots.hub, settings))
        SnapshotService(keeper, log_of_cache, engine.budget, engine.cache_id).offer(host)
        SnapshotStreams(
            keeper,
            log_of_cache,
            scheduler=engine.scheduler,
            downloads=broadcast,
            store=engine.store,
            budget=engine.budget,
            publisher=Publisher(engine.shelf, engine.locks),
            metadata=metadata,
            credentials=credentials,
            export_roots=settings.export_roots,
        ).offer(host)
        yield


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
    keeper, log_of_cache = await to_thread.run_sync(_keeper, engine, hub, bounds)
    async with keeper.running():

        def enter(download: Download) -> None:
            keeper.enter(download.repo, download.commit)

        engine.listener.on_success = enter
        yield log_of_cache, keeper


def _keeper(engine: Engine[DownloadLog], hub: Path, bounds: KeeperSettings) -> tuple[Keeper, SnapshotLog]:
    clock = SystemClock()
    records = CacheRecords(engine.store)
    pins = PinBook(records)
    listener = SnapshotLog(pins.all())
    keeper = Keeper(
        CacheIndex(hub, records, pins, lambda: clock.now().timestamp()),
        pins,
        records,
        engine.shelf,
        engine.locks,
        Wanted(engine.store),
        listener,
        clock,
        bounds,
    )
    return keeper, listener


def _engine_settings(
    settings: RegistrySettings, hub: HubSettings, cache: Path, environment: Mapping[str, str]
) -> EngineSettings:
    return EngineSettings(
        state_directory=settings.state_dir,
        hub=cache,
        endpoint=hub.endpoint,
        offline=hub.offline,
        modes=Modes.group_shared() if settings.group_shared else Modes.from_umask(),
        symlinks=False if is_true(environment.get("HF_HUB_DISABLE_SYMLINKS", "")) else None,
        transport=Transport.HTTP if is_true(environment.get("HF_HUB_DISABLE_XET", "")) else settings.transport,
        disk_reserve=settings.disk_reserve,
        connections_per_file=settings.connections_per_file,
        queue=QueueSettings(jobs=settings.downloads, files=settings.files, retention=settings.retention),
    )


def _hub_settings(settings: RegistrySettings, environment: Mapping[str, str]) -> HubSettings:
    try:
        hub = HubSettings.from_environment(environment)
    except ValueError as error:
        raise StartError(f"HF_ENDPOINT: {error}") from None
    return replace(hub, offline="--offline") if settings.offline and not hub.offline else hub
