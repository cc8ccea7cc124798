"""The gRPC health protocol, for the server, each service, and each resource that wants a status (`models/{id}`).

Contract: https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto. Unlike grpcio-health-checking's
servicer, a Watch ends when the server drains, so that it does not hold the shutdown for its whole grace, and no lock is
held while a slow client is written to.
"""

from typing import Any

import anyio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from slipway_service.fault import Fault, Reason
from slipway_service.handlers import Context

_Status = health_pb2.HealthCheckResponse

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]


class Health(health_pb2_grpc.HealthServicer):
    """Statuses by service name; the empty name is the whole server's."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {"": False}
        self._draining = False
        self._ended = False
        self._change = anyio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Say whether a service, or a resource such as `models/qwen`, can be used. While draining nothing can."""
        self._serving[service] = serving and not self._draining
        self._tell()

    def remove(self, service: str) -> None:
        """Forget a resource: Check answers NOT_FOUND, Watch SERVICE_UNKNOWN."""
        self._serving.pop(service, None)
        self._tell()

    def drain(self) -> None:
        """Say NOT_SERVING for everything, for good."""
        self._draining = True
        self._serving = dict.fromkeys(self._serving, False)
        self._tell()

    def end_watches(self) -> None:
        """End every Watch, now and from now on, after its last status."""
        self._ended = True
        self._tell()

    async def Check(self, request: Any, _context: Context) -> Any:
        """The status of a service; NOT_FOUND for one that was never set, as the protocol demands.

        Raises:
            Fault: SERVICE_NOT_FOUND.
        """
        if (name := request.service) not in self._serving:
            text = f"No status is known for {name!r}. Health/List has those that are."
            raise Fault(Reason.SERVICE_NOT_FOUND, text, resource=name)
        return _Status(status=self._status(request.service))

    async def List(self, _request: Any, _context: Context) -> Any:
        """The statuses of all services."""
        return health_pb2.HealthListResponse(
            statuses={service: _Status(status=self._status(service)) for service in self._serving}
        )

    async def Watch(self, request: Any, context: Context) -> None:
        """The status of a service, now and at every change; ends with DRAINING when watches end."""
        last = None
        while True:
            change = self._change
            if (status := self._status(request.service)) != last:
                last = status
                await context.write(_Status(status=status))
            if self._ended:
                raise Fault(Reason.DRAINING, "The server is shutting down.", retry_after=1.0)
            await change.wait()

    def _status(self, service: str) -> "_Status.ServingStatus":
        if (serving := self._serving.get(service)) is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if serving else _Status.NOT_SERVING

    def _tell(self) -> None:
        change, self._change = self._change, anyio.Event()
        change.set()
