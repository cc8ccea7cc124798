"""What the clients of both services share."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from slipway.common.v1.watch_pb2 import Cursor

from slipway_client.backoff import Backoff
from slipway_client.connection import Connection, ConnectionOptions, Stream
from slipway_client.events import Kind, Resource, Update, uid
from slipway_client.watch import Batch, OnDisconnect, Watch

WatchRequest = TypeVar("WatchRequest", bound=Message)
Item = TypeVar("Item")


LIST_PAGE = 1000
"""Items to ask for at once where all are wanted: as many as services give. They end a page before it is too large."""


class Page(Protocol):
    """A page of a list."""

    @property
    def next_page_token(self) -> str:
        """Empty after the last page."""
        ...


PageT = TypeVar("PageT", bound=Page)


class Client:
    """A client of one service, on a connection that it closes when it is closed.

    Args:
        connection: to the service.
        backoff: waits of watches that have lost their stream.
    """

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        self.connection = connection
        self.backoff = backoff or Backoff()
        self._health = health_pb2_grpc.HealthStub(connection.channel)  # type: ignore[no-untyped-call]

    @classmethod
    def connect(cls, address: str, *, backoff: Backoff | None = None, **options: Unpack[ConnectionOptions]) -> Self:
        """A client of the service at `address`. Nothing is sent before the first call.

        Raises:
            ValueError: the address is not one (see `slipway_client.address.target`).
        """
        return cls(Connection(address, **options), backoff=backoff)

    async def aclose(self) -> None:
        """Closes the connection; calls on it end."""
        await self.connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """`SERVING`, `NOT_SERVING` or `SERVICE_UNKNOWN`: of the whole server, or of a service or `models/{id}`."""
        answer = await self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def _watch(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[WatchRequest, Any],
        request: WatchRequest,
        kind: Kind[Resource, Update],
        *,
        after: Cursor | None,
        known: Iterable[Resource] = (),
        until_done: bool = False,
        on_disconnect: OnDisconnect,
    ) -> Watch[Resource, Update]:
        def open_stream(cursor: Cursor | None) -> Stream[Batch]:
            attempt: Any = type(request)()
            attempt.CopyFrom(request)
            if cursor is not None:
                attempt.after.CopyFrom(cursor)
            return self.connection.stream(method, attempt)

        return Watch(
            open_stream,
            kind,
            after=after,
            known=known,
            until_done=until_done,
            backoff=self.backoff,
            on_disconnect=on_disconnect,
        )


async def collect(
    read_page: Callable[[str], Awaitable[PageT]], items: Callable[[PageT], Iterable[Item]], *, limit: int | None = None
) -> list[Item]:
    """The items of all pages, or the first `limit` of them."""
    found: list[Item] = []
    token = ""
    while limit is None or len(found) < limit:
        page = await read_page(token)
        found.extend(items(page))
        token = page.next_page_token
        if not token:
            break
    return found[:limit]


def resource_name(collection: str, name: str) -> str:
    """`collection/id` from an id or from the name itself."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def resource_names(collection: str, names: Iterable[str]) -> list[str]:
    """As `resource_name`, for several."""
    return [resource_name(collection, name) for name in names]


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a Duration; None stays unset."""
    if seconds is None:
        return None
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


async def versions(
    resource: Resource, watch: Watch[Resource, Any], is_done: Callable[[Resource], bool]
) -> AsyncIterator[Resource]:
    """A resource as it is, then each later version of it, with its newest progress, up to one that is done.

    Ends without such a version when the resource is gone or another has taken its name.
    """
    async with watch:
        yield resource
        while not is_done(resource):
            event = await anext(watch, None)
            current = watch.mirror.resources.get(resource.name)
            if event is None or current is None or uid(current) != uid(resource):
                return
            if current is not resource:
                resource = current
                yield resource
