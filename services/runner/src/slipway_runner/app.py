"""Puts the runner together: devices, backends, the fleet, and the services over them."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread
import structlog
from prometheus_client import Gauge
from slipway_client import Registry
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import EventLog
from slipway_service.health import Health
from slipway_service.lifecycle import Host, Stop
from slipway_service.metrics import WatchMetrics
from slipway_service.state_dir import StartError
from slipway_service.weights.cache_paths import cache_roots

from slipway_runner.backends import described
from slipway_runner.backends.base import Backend
from slipway_runner.backends.base import Host as BackendHost
from slipway_runner.backends.host import run_program
from slipway_runner.backends.select import SHIPPED, find_all
from slipway_runner.config import RunnerSettings
from slipway_runner.devices.inventory import Devices
from slipway_runner.gateway.keeper import Gateway, open_gateway
from slipway_runner.gateway.launch import Setup
from slipway_runner.models.fleet import Fleet, open_fleet
from slipway_runner.models.identity import read_holder
from slipway_runner.models.means import Numbers
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Model
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.states import State
from slipway_runner.rpc import to_proto
from slipway_runner.rpc.logs import LogReader
from slipway_runner.rpc.model_log import ModelLog
from slipway_runner.rpc.models import ModelService
from slipway_runner.rpc.registry import RegistrySnapshots
from slipway_runner.rpc.runner import RunnerService

REGISTRY_SECONDS = 10.0
"""For a call of the registry. Describing a source takes two, which must have failed within the 30 s that callers of the
runner wait: only then what the cache has is looked up."""

log = structlog.stdlib.get_logger("slipway.runner")


@asynccontextmanager
async def runner(
    host: Host, settings: RunnerSettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """The runner at work on a bound host; its models are stopped at the end, or kept if the settings say so.

    Where the end was not asked for (a start that failed, a defect), they run on with their gateway, for the next start.

    Raises:
        StartError: the registry's address is not one, or the file of commands describes none.
    """
    roots = cache_roots(environment)
    for warning in roots.warnings:
        log.warning(warning)
    devices = Devices()
    found = await anyio.to_thread.run_sync(_find_backends, settings, devices, environment)
    events = EventLog(str(uuid4()))
    broadcast = Broadcast(events, metrics=WatchMetrics(host.registry).of("models"))
    host.on_drain(broadcast.drain)

    async with AsyncExitStack() as stack:
        stack.callback(devices.close)
        registry = await stack.enter_async_context(_registry(settings))
        gateway = await stack.enter_async_context(_gateway(settings, host.stop))

        def endpoint() -> str:
            return gateway.endpoint

        host.registry.register(gateway.metrics)
        host.state.announce({"gateway": gateway.address})
        observe = _observer(gateway, host.health)
        sink = ModelLog(events, endpoint=endpoint, observe=observe, observe_progress=gateway.progress)
        holder = await anyio.to_thread.run_sync(read_holder, settings.state_dir)
        snapshots = RegistrySnapshots(registry, roots.hub, holder=holder)
        fleet = await stack.enter_async_context(_fleet(settings, host.stop, found, devices, sink, snapshots, gateway))
        _count_unwritten(host, fleet)
        logs = LogReader(fleet)
        host.on_drain(logs.drain)
        ModelService(fleet, broadcast, endpoint=endpoint, logs=logs).offer(host)
        RunnerService(
            fleet,
            broadcast,
            devices=devices,
            backends=found,
            registry=registry,
            gateway=endpoint,
            hub=roots.hub,
            health=host.health,
        ).offer(host)
        yield


def _count_unwritten(host: Host, fleet: Fleet) -> None:
    gauge = Gauge(
        "slipway_journal_unwritten_entries",
        "Entries of the journal that the disk does not have yet. For longer than seconds: it refuses them.",
        registry=host.registry,
    )
    gauge.set_function(lambda: fleet.journal.unwritten)


def _registry(settings: RunnerSettings) -> Registry:
    """Its client; nothing is sent yet. Raises StartError: its address is not one."""
    try:
        return Registry.connect(settings.registry, deadline=REGISTRY_SECONDS)
    except ValueError as error:
        raise StartError(f"--registry: {error}") from None


def _gateway(settings: RunnerSettings, stop: Stop) -> AbstractAsyncContextManager[Gateway]:
    return open_gateway(
        settings.state_dir,
        Setup(listen=settings.gateway_listen, api_key_file=settings.gateway_api_key_file),
        advertise=settings.advertise,
        keep=settings.keep_models,
        stop_asked=stop.asked.is_set,
    )


@asynccontextmanager
async def _fleet(
    settings: RunnerSettings,
    stop: Stop,
    backends: Backends,
    devices: Devices,
    sink: ModelLog,
    snapshots: RegistrySnapshots,
    gateway: Gateway,
) -> AsyncIterator[Fleet]:
    """The models, those of the runner before this one among them; at the end they are stopped, or left as they are."""
    async with open_fleet(
        state_dir=settings.state_dir,
        backends=backends,
        sink=sink,
        devices=lambda: devices.look().all,
        numbers=_numbers(settings),
        snapshots=snapshots,
        paths=LocalPaths(settings.model_roots),
        drain=gateway.drain,
        use_of=gateway.use,
        wanted=gateway.wanted,
        show_dormant=gateway.show_dormant,
        release=settings.release,
        trust_remote_code=settings.trust_remote_code,
    ) as fleet:
        gateway.complete()
        try:
            yield fleet
        finally:
            with anyio.CancelScope(shield=True):
                await fleet.shutdown(keep_models=settings.keep_models or not stop.asked.is_set())


def _numbers(settings: RunnerSettings) -> Numbers:
    return Numbers(
        loads_at_once=settings.loads_at_once,
        drain=settings.drain_timeout,
        budget=settings.restart_budget,
        window=settings.restart_window,
        first_delay=settings.restart_delay,
        longest_delay=settings.restart_delay_limit,
    )


def _observer(gateway: Gateway, health: Health) -> Callable[[str, Model | None], None]:
    """Tells gateway and health of every transition."""

    def observe(model_id: str, model: Model | None) -> None:
        gateway.update(model_id, model)
        if model is None:
            health.remove(to_proto.MODEL_PREFIX + model_id)
        else:
            health.set(to_proto.MODEL_PREFIX + model_id, model.state is State.LOADED)

    return observe


def _find_backends(settings: RunnerSettings, devices: Devices, environment: Mapping[str, str]) -> Backends:
    """What this host can run with; takes seconds, for programs are asked about themselves.

    Raises:
        StartError: the file of commands describes none.
    """
    search = BackendHost(
        search_path=tuple(map(Path, os.get_exec_path(dict(environment)))),
        run=run_program,
        installed=settings.backends_dir,
        devices=devices.look().all,
    )
    adapters = (*SHIPPED, *_described(settings.commands))
    backends = Backends(adapters=adapters, found=find_all(adapters, search))
    for name, (_, it) in backends.usable.items():
        log.info("backend", name=name, version=it.version, builds=sorted(it.kinds))
    for name, gone in backends.unusable.items():
        log.info("backend not usable", name=name, why=gone.why)
    return backends


def _described(commands: Path | None) -> tuple[Backend, ...]:
    if commands is None:
        return ()
    try:
        return described.read(commands, taken={one.name for one in SHIPPED})
    except described.DescriptionError as error:
        raise StartError(f"--commands: {error}") from None
