"""Both clients for code without an event loop.

    with SyncRegistry.connect("127.0.0.1:50051") as registry:
        for download in registry.pull("org/model"):
            print(download.progress.done_bytes)

Each method takes and raises what the asynchronous one does; what that yields is an iterator here. One loop in a thread
of its own serves all clients of the process.
"""

import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, cast

import anyio
from anyio.from_thread import BlockingPortal

from slipway_client.backoff import Backoff
from slipway_client.client import Client
from slipway_client.connection import ConnectionOptions
from slipway_client.registry import Registry
from slipway_client.runner import Runner

P = ParamSpec("P")
Result = TypeVar("Result")
ClientT = TypeVar("ClientT", bound=Client)


@functools.cache
def shared_loop() -> BlockingPortal:
    """The way into the loop of all synchronous clients.

    It lasts as long as the process: grpc.aio has one completion queue for all loops, and an event that comes for a loop
    which was closed meanwhile disturbs the others.
    """
    ready: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    threading.Thread(target=anyio.run, args=(serve,), name="slipway-client", daemon=True).start()
    return ready.result()


class SyncClient(Generic[ClientT]):
    """A client whose methods wait. Use it as a context manager."""

    _asynchronous: type[ClientT]

    def __init__(self, client: ClientT, portal: BlockingPortal) -> None:
        self._client = client
        self._portal = portal

    @classmethod
    def connect(cls, address: str, *, backoff: Backoff | None = None, **options: Unpack[ConnectionOptions]) -> Self:
        """As the asynchronous client's."""
        connect = functools.partial(cls._asynchronous.connect, address, backoff=backoff, **options)
        return cls(shared_loop().call(connect), shared_loop())

    def close(self) -> None:
        """Closes the connection; calls on it end."""
        self._portal.call(self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def returning(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate["SyncClient[Any]", P], Result]:
    """A method that waits for the result of an asynchronous one."""

    @functools.wraps(method)
    def call(self: SyncClient[Any], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        result: Result = self._portal.call(functools.partial(method, self._client, *args, **kwargs))
        return result

    return call


def yielding(
    method: Callable[Concatenate[Any, P], AsyncIterator[Result]],
) -> Callable[Concatenate["SyncClient[Any]", P], Iterator[Result]]:
    """A method that yields what an asynchronous one does, and ends that when it is left early."""

    @functools.wraps(method)
    def call(self: SyncClient[Any], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Result]:
        iterator = self._portal.call(functools.partial(method, self._client, *args, **kwargs))
        try:
            while (item := self._portal.call(_next, iterator)) is not _END:
                yield cast("Result", item)
        finally:
            self._portal.call(_close, iterator)

    return call


_END = object()


async def _next(iterator: AsyncIterator[Result]) -> Result | object:
    return await anext(iterator, _END)


async def _close(iterator: Any) -> None:
    """Ends a watch or a stream, or an asynchronous generator."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
    else:
        iterator.close()


class SyncRegistry(SyncClient[Registry]):
    """All calls of a registry; see `Registry`."""

    _asynchronous = Registry

    health = returning(Registry.health)
    search = returning(Registry.search)
    get_repo = returning(Registry.get_repo)
    list_repo_files = returning(Registry.list_repo_files)
    list_repo_refs = returning(Registry.list_repo_refs)

    create_download = returning(Registry.create_download)
    start_download = returning(Registry.start_download)
    get_download = returning(Registry.get_download)
    list_downloads = returning(Registry.list_downloads)
    pause_download = returning(Registry.pause_download)
    resume_download = returning(Registry.resume_download)
    cancel_download = returning(Registry.cancel_download)
    watch_downloads = yielding(Registry.watch_downloads)
    follow_download = yielding(Registry.follow_download)
    pull = yielding(Registry.pull)

    get_snapshot = returning(Registry.get_snapshot)
    list_snapshots = returning(Registry.list_snapshots)
    watch_snapshots = yielding(Registry.watch_snapshots)
    verify_snapshot = yielding(Registry.verify_snapshot)
    delete_snapshot = returning(Registry.delete_snapshot)
    prune_cache = returning(Registry.prune_cache)
    export_snapshot = yielding(Registry.export_snapshot)
    import_snapshot = yielding(Registry.import_snapshot)
    get_cache_usage = returning(Registry.get_cache_usage)
    get_cache_usage_by_repo = returning(Registry.get_cache_usage_by_repo)
    pin_snapshot = returning(Registry.pin_snapshot)
    unpin_snapshot = returning(Registry.unpin_snapshot)
    list_pins = returning(Registry.list_pins)
    watch_pins = yielding(Registry.watch_pins)


class SyncRunner(SyncClient[Runner]):
    """All calls of a runner; see `Runner`."""

    _asynchronous = Runner

    health = returning(Runner.health)
    load_model = returning(Runner.load_model)
    unload_model = returning(Runner.unload_model)
    get_model = returning(Runner.get_model)
    list_models = returning(Runner.list_models)
    watch_models = yielding(Runner.watch_models)
    load = yielding(Runner.load)
    follow_load = yielding(Runner.follow_load)
    unload = yielding(Runner.unload)
    read_logs = yielding(Runner.read_logs)
    set_active_model = returning(Runner.set_active_model)
    get_active_model = returning(Runner.get_active_model)
    get_runner = returning(Runner.get_runner)
    drain_runner = returning(Runner.drain_runner)
