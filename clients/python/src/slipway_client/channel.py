"""What a channel to a Slipway service is set to, and the defaults that every unary call gets."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from slipway.registry.v1 import catalog_service_pb2, download_service_pb2, snapshot_service_pb2
from slipway.runner.v1 import model_service_pb2, runner_service_pb2

from slipway_client.address import target
from slipway_client.error_details import from_rpc_error

UNARY_DEADLINE = 30.0
"""Seconds for a unary call that names no deadline: the slowest of them asks the Hub a few times."""
TOKEN_KEY = "x-hf-token"
REQUEST_ID_KEY = "x-request-id"

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Without its bandwidth probe the core buffers 0.1 MB for a reader that falls behind, not 6 MB: a slow watcher is
    # then felt by the server, which sends it the newest state instead of all the states before it.
    ("grpc.http2.bdp_probe", 0),
    # A dead network is noticed within 40 s also by a stream on which nothing comes; servers allow a ping each 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The core's own waits between connection attempts (1 s growing to 120 s) would outlast a service's restart.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Services are in the cluster; a proxy from the environment is meant for the web.
    ("grpc.enable_http_proxy", 0),
)

RETRY_POLICY = {
    # Covers a replica that goes away under a call. More is the caller's decision: it knows how long it can wait.
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

_CONTRACT: tuple[FileDescriptor, ...] = (
    catalog_service_pb2.DESCRIPTOR,
    download_service_pb2.DESCRIPTOR,
    snapshot_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    runner_service_pb2.DESCRIPTOR,
)

Request = TypeVar("Request")
Response = TypeVar("Response")


def open_channel(
    address: str, *, deadline: float = UNARY_DEADLINE, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel whose unary calls have a deadline and a request id and raise SlipwayError.

    Must be called on the event loop that uses it. Several replicas share the calls in turn. A server that says "do not
    repeat" (`grpc-retry-pushback-ms: -1`, gRFC A6) is asked once.

    Raises:
        ValueError: the address is not one.
    """
    options = (*CHANNEL_OPTIONS, ("grpc.service_config", service_config()))
    interceptors = [UnaryDefaults(address, deadline)]
    if credentials is None:
        return grpc.aio.insecure_channel(target(address), options, interceptors=interceptors)
    return grpc.aio.secure_channel(target(address), credentials, options, interceptors=interceptors)


def service_config() -> str:
    """gRPC's service config: calls in turn over all replicas, and a retry for what may be repeated."""
    retried = [{"service": service, "method": method} for service, method in _repeatable_methods()]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": retried, "retryPolicy": RETRY_POLICY}],
        }
    )


def _repeatable_methods() -> Iterator[tuple[str, str]]:
    """Service and name of each unary method that the contract calls idempotent. Streams are resumed, not repeated."""
    for file in _CONTRACT:
        for service in file.services_by_name.values():
            for method in service.methods:
                level = method.GetOptions().idempotency_level
                if level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN and not method.server_streaming:
                    yield service.full_name, method.name


class UnaryDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline and a request id, and turns its failure into a SlipwayError."""

    def __init__(self, address: str, deadline: float) -> None:
        self._address = address
        self._deadline = deadline

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Response:
        """Sends the call and waits for its answer."""
        request_id = uuid.uuid4().hex
        timeout = client_call_details.timeout
        call = await continuation(
            grpc.aio.ClientCallDetails(
                client_call_details.method,
                self._deadline if timeout is None else timeout,
                grpc.aio.Metadata(*(client_call_details.metadata or ()), (REQUEST_ID_KEY, request_id)),
                client_call_details.credentials,
                client_call_details.wait_for_ready,
            ),
            request,
        )
        answer = asyncio.ensure_future(call)
        try:
            # Who waits for the call itself is cancelled with an exception of gRPC's, which no cancel scope of anyio
            # takes for its own: it would go up and end the caller's task group.
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            call.cancel()
            raise
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, address=self._address, request_id=request_id) from error
