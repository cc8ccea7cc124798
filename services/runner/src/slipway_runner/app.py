"""Puts the runner together: devices, backends, the fleet, and the services over them."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread
import structlog
from slipway_client import Registry
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import EventLog
from slipway_service.health import Health
from slipway_service.lifecycle import Host
from slipway_service.metrics import WatchMetrics
from slipway_service.state_dir import StartError
from slipway_service.weights.cache_paths import cache_roots

from slipway_runner.backends.base import Host as BackendHost
from slipway_runner.backends.host import run_program
from slipway_runner.backends.select import SHIPPED, find_all
from slipway_runner.config import RunnerSettings
from slipway_runner.devices.inventory import Devices
from slipway_runner.gateway.keeper import Gateway, open_gateway
from slipway_runner.gateway.launch import Setup
from slipway_runner.models.fleet import open_fleet
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

log = structlog.stdlib.get_logger("slipway.runner")


@asynccontextmanager
async def runner(
    host: Host, settings: RunnerSettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """The runner at work on a bound host; its models are stopped at the end, or kept if the settings say so.

    Raises:
        StartError: the registry's address is not one.
    """
    roots = cache_roots(environment)
    for warning in roots.warnings:
        log.warning(warning)
    devices = Devices()
    found = await anyio.to_thread.run_sync(_find_backends, settings, devices, environment)
    events = EventLog(str(uuid4()))
    broadcast = Broadcast(events, metrics=WatchMetrics(host.registry, log="models"))
    host.on_drain(broadcast.drain)

    async with AsyncExitStack() as stack:
        stack.callback(devices.close)
        try:
            registry = await stack.enter_async_context(Registry.connect(settings.registry))
        except ValueError as error:
            raise StartError(f"--registry: {error}") from None
        gateway = await stack.enter_async_context(
            open_gateway(
                settings.state_dir,
                Setup(listen=settings.gateway_listen, api_key_file=settings.gateway_api_key_file),
                advertise=settings.advertise,
                keep=settings.keep_models,
            )
        )

        def endpoint() -> str:
            return gateway.endpoint

        host.registry.register(gateway.metrics)
        host.state.announce({"gateway": gateway.address})
        fleet = await stack.enter_async_context(
            open_fleet(
                state_dir=settings.state_dir,
                backends=found,
                sink=ModelLog(
                    events,
                    endpoint=endpoint,
                    observe=_observer(gateway, host.health),
                    observe_progress=gateway.progress,
                ),
                devices=lambda: devices.look().all,
                numbers=Numbers(loads_at_once=settings.loads_at_once, drain=settings.drain_timeout),
                snapshots=RegistrySnapshots(registry, roots.hub),
                paths=LocalPaths(settings.model_roots),
                drain=gateway.drain,
                use_of=gateway.use,
                trust_remote_code=settings.trust_remote_code,
            )
        )
        gateway.complete()
        ModelService(fleet, broadcast, endpoint=endpoint, logs=LogReader(fleet)).offer(host)
        RunnerService(
            fleet,
            broadcast,
            devices=devices,
            backends=found,
            registry=registry,
            gateway=endpoint,
            hub=roots.hub,
        ).offer(host)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await fleet.shutdown(keep_models=settings.keep_models)


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
    """What this host can run with; takes seconds, for programs are asked about themselves."""
    search = BackendHost(
        search_path=tuple(map(Path, os.get_exec_path(dict(environment)))),
        run=run_program,
        installed=settings.backends_dir,
        devices=devices.look().all,
    )
    backends = Backends(adapters=SHIPPED, found=find_all(SHIPPED, search))
    for name, (_, it) in backends.usable.items():
        log.info("backend", name=name, version=it.version, builds=sorted(it.kinds))
    for name, gone in backends.unusable.items():
        log.info("backend not usable", name=name, why=gone.why)
    return backends
