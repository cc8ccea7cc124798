"""gRPC servers with the options that experience asks for, and listeners that say why they cannot listen."""

import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
import structlog
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry, MetricsHandler

from slipway_service import health
from slipway_service.interceptors import Calls
from slipway_service.reflection import add_reflection
from slipway_service.rpc_metrics import RpcMetrics
from slipway_service.state_dir import StartError
from slipway_service.streaming import STALL_LIMIT
from slipway_service.values import ListenAddress

OPTIONS: tuple[tuple[str, int], ...] = (
    # Without this a second server binds the same port silently and takes half of the connections.
    ("grpc.so_reuseport", 0),
    # Core drops calls that nobody has accepted yet beyond 1000, and grpc.aio accepts one at a time: thousands of
    # watchers that reconnect at once would see CANCELLED. From the hard limit on, core rejects all.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # Dead networks: ping after 30 s of silence, give up 10 s later.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients ping every 30 s (slipway_client does); core's default of 300 s would end their connections as abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""The receive limit stays gRPC's 4 MiB: lists are paged and batches bounded, so that no message comes near it."""

_METRICS_POLL = 0.1
"""Seconds until the metrics listener notices that it is to end."""

_UNIX_PATH_LIMIT = 107
"""Bytes in the path of a Unix socket (unix(7): sun_path holds 108 with its NUL)."""

log = structlog.stdlib.get_logger("slipway.server")


def new_server(metrics: RpcMetrics, *, stall_limit: float = STALL_LIMIT) -> grpc.aio.Server:
    """A server with our options and interceptor, not yet bound."""
    return grpc.aio.server(interceptors=[Calls(metrics, stall_limit=stall_limit)], options=OPTIONS)


def bind(server: grpc.aio.Server, address: ListenAddress) -> ListenAddress:
    """Listen; returns the address with the port that was chosen for port 0.

    Raises:
        StartError: something else listens there, or the host is not ours.
    """
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError:
        raise _cannot_listen(address, "in use, or no address of this host") from None
    return ListenAddress(address.host, port)


@contextmanager
def metrics_listener(address: ListenAddress, registry: CollectorRegistry) -> Iterator[ListenAddress]:
    """Serve the metrics over HTTP, in a thread of its own, until the block ends.

    Raises:
        StartError: something else listens there.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = type("MetricsServer", (ThreadingHTTPServer,), {"address_family": family})
    try:
        listener = listening((address.host, address.port), MetricsHandler.factory(registry))
    except OSError as error:
        raise _cannot_listen(address, error.strerror or str(error)) from None
    thread = Thread(target=listener.serve_forever, args=(_METRICS_POLL,), name="metrics")
    thread.start()
    try:
        yield ListenAddress(address.host, listener.server_port)
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@asynccontextmanager
async def admin_server(path: Path, statuses: health.Health, services: Sequence[str]) -> AsyncIterator[None]:
    """Serve channelz, health and reflection on a Unix socket that only this user may open.

    Channelz shows every peer and connection, so it is never on the public port.
    """
    if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
        log.warning("no admin socket: its path is too long", path=str(path), limit=_UNIX_PATH_LIMIT)
        yield
        return
    server = new_server(RpcMetrics(CollectorRegistry()))
    channelz.add_channelz_servicer(server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)  # type: ignore[no-untyped-call]
    add_reflection(server, [*services, "grpc.channelz.v1.Channelz", health.SERVICE.full_name])
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix://{path}")
    finally:
        os.umask(before)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _cannot_listen(address: ListenAddress, why: str) -> StartError:
    return StartError(f"cannot listen on {address}: {why}. Stop the other program or choose another address")
