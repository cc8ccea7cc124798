"""The life of a service: bind, open, serve, and on a signal drain in an order that loses nothing.

The order of a stop: health says NOT_SERVING, load balancers get `drain_notice` to see it, watches end with DRAINING,
calls in progress get `drain_grace`, the service closes what it runs, the process exits.
"""

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import grpc
import structlog
from anyio.abc import TaskStatus
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from slipway_service import health, logs
from slipway_service.config import ServiceSettings
from slipway_service.groups import unwrapped
from slipway_service.metrics import new_registry
from slipway_service.reflection import add_reflection
from slipway_service.rpc_metrics import RpcMetrics, methods_of
from slipway_service.server import admin_server, bind, metrics_listener, new_server
from slipway_service.state_dir import ADMIN_SOCKET, StartError, StateDir, hold
from slipway_service.values import ListenAddress

log = structlog.stdlib.get_logger("slipway.lifecycle")

Servicer = TypeVar("Servicer")


class Stop:
    """The wish that the service ends: asked for once it drains, asked for again it no longer waits."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.urgent = anyio.Event()

    def ask(self) -> None:
        """Ask, for the first time or again."""
        (self.urgent if self.asked.is_set() else self.asked).set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a service finds itself in: it registers its servicers here before it is served.

    Attributes:
        server: bound, not started. Add servicers by `offer`, streams by `watch_rpc.add_watch` and `add_stream`.
        address: where gRPC is served.
        health: the statuses; each offered service's is set when serving begins, resources are the service's to set.
        registry: the metrics that are scraped.
        state: the state directory, and the addresses published in it.
        stop: to end the service from inside.
    """

    settings: ServiceSettings
    server: grpc.aio.Server
    address: ListenAddress
    health: health.Health
    registry: CollectorRegistry
    state: StateDir
    stop: Stop
    _rpc_metrics: RpcMetrics
    _services: list[ServiceDescriptor] = field(default_factory=list)
    _drains: list[Callable[[], None]] = field(default_factory=list)

    def offer(
        self, service: ServiceDescriptor, add: Callable[[Servicer, grpc.aio.Server], None], servicer: Servicer
    ) -> None:
        """Serve a service, and show it in reflection, health and metrics.

        Args:
            service: its descriptor, `model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]`.
            add: the generated `add_ModelServiceServicer_to_server`.
            servicer: what implements it. Methods that it leaves to the generated base answer NOT_IMPLEMENTED.
        """
        add(servicer, self.server)
        self._services.append(service)
        self._rpc_metrics.precreate(methods_of([service]))

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call back when watches have to end: `broadcast.drain`."""
        self._drains.append(callback)

    @property
    def services(self) -> list[str]:
        """The full names of the services offered."""
        return [service.full_name for service in self._services]

    def serving(self, yes: bool) -> None:
        """Set the health of the server and of every service offered."""
        for name in ("", *self.services):
            self.health.set(name, yes)

    def drain(self) -> None:
        """End every watch."""
        for callback in self._drains:
            callback()


Opener = Callable[[Host], AbstractAsyncContextManager[None]]
"""Opens the service: registers its servicers on the host, starts what it runs, yields, and closes what it runs."""


def run(settings: ServiceSettings, opener: Opener, *, stop_limit: float = 30.0) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal cuts the waits short.

    Args:
        settings: the settings in force.
        opener: the service.
        stop_limit: seconds that the service may take to close what it runs, after its calls have ended.

    Raises:
        SystemExit: 1, if it could not start or failed.
    """
    logs.configure(style=settings.log_format, level=settings.log_level)
    try:
        anyio.run(_run, settings, opener, stop_limit)
    except Exception as raised:
        if isinstance(error := unwrapped(raised), StartError):
            log.error(str(error))
        else:
            log.critical("stopped by a defect", exc_info=True)
        sys.exit(1)


async def _run(settings: ServiceSettings, opener: Opener, stop_limit: float) -> None:
    stop = Stop()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:

            async def obey() -> None:
                async for number in signals:
                    log.info("stopping", signal=number.name)
                    stop.ask()

            tasks.start_soon(obey)
            await serve(settings, opener, stop=stop, stop_limit=stop_limit)
            tasks.cancel_scope.cancel()


async def serve(
    settings: ServiceSettings,
    opener: Opener,
    *,
    stop: Stop,
    stop_limit: float = 30.0,
    task_status: TaskStatus[Host] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is asked for. Calls are answered from when `address` is in the state directory, which is also
    when a task group's `start` returns the host.

    Raises:
        StartError: an address or the state directory is taken.
    """
    registry = new_registry()
    with hold(settings.state_dir) as state:
        async with _bound(settings, state, registry, stop) as host:
            with (
                metrics_listener(settings.metrics_listen, registry) as metrics_address,
                anyio.CancelScope() as limit,
            ):
                async with opener(host):
                    _tell_addresses(host, metrics_address)
                    await _serve_and_drain(host, str(metrics_address), task_status)
                    limit.deadline = anyio.current_time() + stop_limit
            if limit.cancelled_caught:
                log.error("the service did not close in time", limit=stop_limit)
    log.info("stopped")


def _tell_addresses(host: Host, metrics_address: ListenAddress) -> None:
    """Only once the service is open: one that another instance keeps out does not listen for anybody."""
    log.info("listening", address=str(host.address), metrics=str(metrics_address))
    for name, address in host.settings.exposed:
        log.warning(
            "other hosts can reach this without TLS, and gRPC and metrics without authentication",
            option=name,
            address=str(address),
        )


@asynccontextmanager
async def _bound(
    settings: ServiceSettings, state: StateDir, registry: CollectorRegistry, stop: Stop
) -> AsyncIterator[Host]:
    rpc_metrics = RpcMetrics(registry)
    server = new_server(rpc_metrics, stall_limit=settings.stall_limit)
    host = Host(
        settings=settings,
        server=server,
        address=bind(server, settings.listen),
        health=health.Health(),
        registry=registry,
        state=state,
        stop=stop,
        _rpc_metrics=rpc_metrics,
    )
    host.offer(health.SERVICE, health_pb2_grpc.add_HealthServicer_to_server, host.health)
    host.on_drain(host.health.end_watches)
    try:
        yield host
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop(None)


async def _serve_and_drain(host: Host, metrics_address: str, task_status: TaskStatus[Host]) -> None:
    add_reflection(host.server, host.services)
    async with admin_server(host.state.path / ADMIN_SOCKET, host.health, host.services):
        await host.server.start()
        host.serving(True)
        host.state.announce({"grpc": str(host.address), "metrics": metrics_address})
        log.info("serving", services=host.services)
        task_status.started(host)
        await host.stop.asked.wait()
        await _drain(host)


async def _drain(host: Host) -> None:
    host.health.drain()
    with anyio.move_on_after(host.settings.drain_notice):
        await host.stop.urgent.wait()
    host.drain()
    async with anyio.create_task_group() as tasks:

        async def hurry() -> None:
            await host.stop.urgent.wait()
            await host.server.stop(None)

        tasks.start_soon(hurry)
        await host.server.stop(host.settings.drain_grace)
        tasks.cancel_scope.cancel()
