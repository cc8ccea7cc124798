"""What the registry opens to work, served or not: the way to the Hub, its token, the cache, and the download engine."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog
from slipway_service.fault import Fault
from slipway_service.state_dir import StartError
from slipway_service.weights.cache_paths import cache_roots
from sqlalchemy.exc import DatabaseError

from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.keeper import Keeper, KeeperSettings
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.listener import Listener as CacheListener
from slipway_registry.cache.owner import CacheTakenError
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.records import CacheRecords
from slipway_registry.cache.wanted import Wanted
from slipway_registry.config import RegistrySettings
from slipway_registry.hub.credentials import Credentials
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.settings import HubSettings, is_true
from slipway_registry.jobs.assemble import Engine, EngineSettings, download_engine
from slipway_registry.jobs.clock import SystemClock
from slipway_registry.jobs.directory import DirectoryTakenError
from slipway_registry.jobs.ledger import Listener
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.retry import RetryPolicy
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.choice import Transport

log = structlog.stdlib.get_logger("slipway.registry")

L = TypeVar("L", bound=Listener)
K = TypeVar("K", bound=CacheListener)


class TakenError(StartError):
    """Another registry works with the cache or the state directory."""


class UnusableError(StartError):
    """The cache, the state directory or the database cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Generic[L]):
    """What is open; `hub` is the hub cache."""

    engine: Engine[L]
    gateway: HubGateway
    credentials: Credentials
    hub: Path


@asynccontextmanager
async def opened(
    settings: RegistrySettings,
    environment: Mapping[str, str],
    *,
    listener: Callable[[Store], L],
    policy: RetryPolicy | None = None,
) -> AsyncIterator[Opened[L]]:
    """The engine at work in the cache, which is ours alone, until the body ends; then drained and closed.

    Args:
        environment: huggingface_hub's variables.
        listener: see `download_engine`.
        policy: what downloads do about setbacks, where not the usual.

    Raises:
        TakenError: the cache or the state directory is another registry's.
        UnusableError: they cannot be used.
        StartError: the environment is wrong.
    """
    roots = cache_roots(environment)
    for warning in roots.warnings:
        log.warning(warning)
    hub = hub_settings(settings, environment)
    credentials = Credentials.from_environment(environment, roots.home)
    gateway = HubGateway(hub)
    wanted = _engine_settings(settings, hub, roots.hub, environment, policy or RetryPolicy())
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(
                download_engine(wanted, credential=credentials.service, quota=gateway.budget, listener=listener)
            )
        except (CacheTakenError, DirectoryTakenError) as error:
            raise TakenError(str(error)) from None
        except Fault as fault:  # the database's disk is full, or fails
            raise UnusableError(f"{fault.text} It is in {settings.state_dir}") from None
        except OSError as error:
            where = error.filename or roots.hub
            raise UnusableError(
                f"cannot use {where}: {error.strerror}; HF_HOME and --state-dir say where to work"
            ) from None
        except DatabaseError as error:
            where = settings.state_dir / "registry.sqlite3"
            raise UnusableError(
                f"cannot use the database {where}: {error.orig}. Move it away to begin with none"
            ) from None
        log.info("cache", directory=str(roots.hub), id=engine.cache_id, hub=hub.endpoint, offline=hub.offline or None)
        yield Opened(engine=engine, gateway=gateway, credentials=credentials, hub=roots.hub)


def keeper_of(
    engine: Engine[Any], hub: Path, settings: KeeperSettings, listener: Callable[[Store], K]
) -> tuple[Keeper, K]:
    """Who keeps the cache's books, not running yet, and the listener, which is made of the database.

    Reads the database: for a thread.
    """
    clock = SystemClock()
    records = CacheRecords(engine.store)
    pins = PinBook(records, clock.now().timestamp())
    told = listener(engine.store)
    index = CacheIndex(hub, records, pins, lambda: clock.now().timestamp())
    wanted = Wanted(engine.store)
    return Keeper(index, pins, records, engine.shelf, engine.locks, wanted, told, clock, settings), told


def hub_settings(settings: RegistrySettings, environment: Mapping[str, str]) -> HubSettings:
    """Where the Hub is, and whether it may be asked.

    Raises:
        StartError: HF_ENDPOINT is no address.
    """
    try:
        hub = HubSettings.from_environment(environment)
    except ValueError as error:
        raise StartError(f"HF_ENDPOINT: {error}") from None
    return replace(hub, offline="--offline") if settings.offline and not hub.offline else hub


def _engine_settings(
    settings: RegistrySettings, hub: HubSettings, cache: Path, environment: Mapping[str, str], policy: RetryPolicy
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
        policy=policy,
    )
