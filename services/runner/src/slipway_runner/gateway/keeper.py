"""The runner's side of its gateway: the process kept alive, its table current, its counts asked for.

A gateway that an earlier runner left behind is taken over as it is, so that no stream is cut by a runner that was
killed. One that was started with another setup is replaced: it finishes what it has begun, while a new one serves.
"""

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import structlog
from prometheus_client.registry import Collector
from slipway_service.state_dir import StartError

from slipway_runner.gateway.ask import REPLY_SECONDS, UNANSWERED, ask
from slipway_runner.gateway.keys import read_keys
from slipway_runner.gateway.launch import Place, Serving, Setup
from slipway_runner.gateway.routes import Route
from slipway_runner.gateway.scrape import Scrape
from slipway_runner.gateway.use import Use, drained_at, use_at
from slipway_runner.models.demand import Dormant
from slipway_runner.models.record import Model
from slipway_runner.models.spec import RepoSource
from slipway_runner.process import pidfd
from slipway_runner.progress.tracker import LoadProgress

CLOSE_SECONDS = 1.0
"""For answers under way when the runner stops; by then its models have drained, and none is left to give one."""

RETIRE_SECONDS = 600.0
"""For answers under way of a gateway that is replaced. They hold nobody up."""

PROGRESS_SECONDS = 1.0
"""Between two tables that differ in nothing but progress; clients are told to ask every `routes.RETRY_AFTER`."""

RETRY_SECONDS = 1.0
"""Between two attempts to start a gateway again, or to tell it its table."""

DEMAND_SECONDS = 30.0
"""That one question for models on demand waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """With a gateway that may hang.

    Attributes:
        look: seconds between two tables that do not differ, which are sent to hear whether it answers.
        reply: seconds that it may take to answer one.
        unanswered: tables in turn that it may leave unanswered before it is killed: a minute, for a host that swaps
            or has no core to spare. They are counted, because time also passes for a runner that was stopped itself.
    """

    look: float = 10.0
    reply: float = REPLY_SECONDS
    unanswered: int = 10


DEFAULT_PATIENCE = Patience()

log = structlog.stdlib.get_logger("slipway.gateway")


class Gateway:
    """The gateway of this runner. Made by `open_gateway`.

    Args:
        place: where its socket and log are.
        setup: what it is to be started with.
        advertise: the host name that others reach it under; empty for the address it listens on.
        patience: with a process that may hang.
    """

    def __init__(self, place: Place, setup: Setup, advertise: str, patience: Patience = DEFAULT_PATIENCE) -> None:
        self._place = place
        self._setup = setup
        self._advertise = advertise
        self._patience = patience
        self._serving: Serving | None = None
        self._taken_over = False
        self._routes: dict[str, Route] = {}
        self._dormant: dict[str, Route] = {}
        self._draining: set[str] = set()
        self._complete = anyio.Event()
        self._pushing = anyio.Lock()
        self._transition = anyio.Event()
        self._news = anyio.Event()

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on."""
        return str(self._serving.address) if self._serving else ""

    @property
    def endpoint(self) -> str:
        """The base URL for OpenAI's clients, as other hosts reach it."""
        if self._serving is None:
            return ""
        address = self._serving.address
        return f"http://{replace(address, host=self._advertise or address.host)}/v1"

    @property
    def in_use(self) -> bool:
        """Whether models may be served by it, of this runner or the one before it."""
        return self._taken_over or bool(self._routes or self._dormant)

    @property
    def metrics(self) -> Collector:
        """What the process counts, for the runner's registry."""
        return Scrape(self._place.socket)

    # The table.

    def update(self, model_id: str, model: Model | None) -> None:
        """A model has changed, or is gone. Told to the process at once."""
        if model is None:
            self._routes.pop(model_id, None)
        else:
            self._routes[model_id] = route_of(model)
        self._transition.set()
        self._news.set()

    def progress(self, model_id: str, progress: LoadProgress) -> None:
        """How far a load is. Told to the process after `PROGRESS_SECONDS` at the latest."""
        if (route := self._routes.get(model_id)) is not None:
            self._routes[model_id] = replace(route, fraction=progress.fraction, detail=progress.detail)
            self._news.set()

    def complete(self) -> None:
        """All models that there are have been told of by `update`.

        Until then a gateway that was taken over keeps the table it has, and a new one asks its clients to wait.
        """
        self._complete.set()

    async def drain(self, model_id: str, seconds: float) -> None:
        """Send no more requests to a model, and return when those in flight are done, or after so many seconds."""
        route = self._routes.get(model_id)
        if route is None:
            return
        self._draining.add(route.uid)
        with suppress(*UNANSWERED):
            if self._complete.is_set():
                await self._push()
        async with anyio.create_task_group() as tasks:
            for socket in (self._place.socket, *self._place.retired()):
                tasks.start_soon(drained_at, socket, route.uid, seconds)

    async def use(self) -> Mapping[str, Use]:
        """How each model that was ever used is used, by uid.

        Raises:
            OSError, aiohttp.ClientError, TimeoutError: the gateway does not answer; see `ask.UNANSWERED`.
        """
        return await use_at(self._place)

    def show_dormant(self, dormant: Mapping[str, Dormant]) -> None:
        """These are gone, and are loaded again when a request names them. Told to the process at once."""
        self._dormant = {model_id: replace(route_of(one.model), active=False) for model_id, one in dormant.items()}
        self._transition.set()
        self._news.set()

    async def wanted(self) -> Sequence[str]:
        """Wait until requests have named models that `show_dormant` told of; their ids."""
        question = f"/demand?seconds={DEMAND_SECONDS:g}"
        while True:
            try:
                said = await ask(self._place.socket, "GET", question, patience=DEMAND_SECONDS + REPLY_SECONDS)
            except UNANSWERED:
                await anyio.sleep(RETRY_SECONDS)
                continue
            if said["wanted"]:
                return list(said["wanted"])

    async def _push(self) -> None:
        async with self._pushing:  # so that no older table comes after a newer one
            self._draining &= {route.uid for route in self._routes.values()}
            shown = {**self._dormant, **self._routes}
            routes = [replace(route, draining=route.uid in self._draining) for route in shown.values()]
            table = {"routes": [route.to_json() for route in routes]}
            await ask(self._place.socket, "PUT", "/table", table, patience=self._patience.reply)

    async def _keep_table(self) -> None:
        await self._complete.wait()
        unanswered = 0
        while True:
            self._transition, self._news = anyio.Event(), anyio.Event()
            try:
                await self._push()
            except UNANSWERED as error:
                log.warning("the gateway did not take its table", error=repr(error))
                unanswered = unanswered + 1 if isinstance(error, TimeoutError) else 0
                if unanswered >= self._patience.unanswered:
                    self._kill()
                    unanswered = 0
                with anyio.move_on_after(RETRY_SECONDS):
                    await self._transition.wait()
                continue
            unanswered = 0
            with anyio.move_on_after(PROGRESS_SECONDS):
                await self._transition.wait()
            with anyio.move_on_after(self._patience.look):
                await self._news.wait()

    def _kill(self) -> None:
        """End a process that hangs; `keep` starts another."""
        if self._serving is not None:
            log.warning("the gateway hangs: it does not answer, and is killed", pid=self._serving.running.pid)
            pidfd.send(self._serving.running.family.leader, signal.SIGKILL)

    # The process.

    async def start(self) -> None:
        """Take over a gateway that serves what is wanted, or start one.

        Raises:
            StartError: the address is taken, or it does not come up.
        """
        found = await self._place.find()
        if found is not None and found.setup == str(self._setup):
            log.info("gateway taken over", pid=found.running.pid, address=str(found.address))
            self._serving, self._taken_over = found, True
            return
        if found is not None:
            log.info("gateway replaced: it was started with another setup", pid=found.running.pid)
            await self._place.retire(found, RETIRE_SECONDS)
        else:
            await self._place.clear()
        self._serving = await self._place.start(self._setup, self._setup.listen)
        log.info("gateway started", pid=self._serving.running.pid, address=self.address)

    async def stop(self) -> None:
        """End it, and wait for that."""
        if self._serving is not None:
            with anyio.CancelScope(shield=True):
                await self._place.end(self._serving, CLOSE_SECONDS)

    def leave(self) -> None:
        """Let it serve on, for the next runner."""
        if self._serving is not None:
            self._serving.running.leave()

    async def keep(self) -> None:
        """Keep the table current, and start the process again when it has ended; until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_table)
            while self._serving is not None:
                how = await self._serving.running.ended()
                self._serving.running.reap()
                log.error("the gateway has ended; it is started again", how=str(how), log=str(self._place.log.path))
                self._serving = await self._start_again(self._serving)
                self._transition.set()
                self._news.set()

    async def _start_again(self, gone: Serving) -> Serving:
        """On the same port, also where any was good at first."""
        while True:
            try:
                return await self._place.start(self._setup, gone.address)
            except StartError as error:
                log.error(str(error))
                await anyio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def open_gateway(
    folder: Path,
    setup: Setup,
    *,
    advertise: str = "",
    keep: bool = False,
    stop_asked: Callable[[], bool] = lambda: True,
    patience: Patience = DEFAULT_PATIENCE,
) -> AsyncIterator[Gateway]:
    """The gateway, serving; stopped at the end unless it is to be kept for the next runner.

    Args:
        folder: the runner's state directory.
        setup: what it is started with.
        advertise: the host name that others reach it under; empty for the address it listens on.
        keep: let it serve on at the end.
        stop_asked: whether the end was asked for; at another one, a gateway in use serves on.
        patience: with a process that may hang.

    Raises:
        StartError: it cannot serve, or the file of its keys is no use.
    """
    if setup.api_key_file is not None:
        try:
            await anyio.to_thread.run_sync(read_keys, setup.api_key_file)
        except (OSError, ValueError) as error:
            raise StartError(f"--gateway-api-key-file: {error}") from None
    gateway = Gateway(Place(folder), setup, advertise, patience)
    await gateway.start()
    async with AsyncExitStack() as stack:

        async def end() -> None:
            if keep or (gateway.in_use and not stop_asked()):
                gateway.leave()
            else:
                await gateway.stop()

        stack.push_async_callback(end)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(gateway.keep)
        try:
            yield gateway
        finally:
            tasks.cancel_scope.cancel()


def route_of(model: Model) -> Route:
    """What the gateway needs to know of a model."""
    source = model.spec.source
    return Route(
        id=model.id,
        uid=model.uid,
        aliases=model.spec.aliases,
        repo_id=source.repo_id if isinstance(source, RepoSource) else "",
        task=model.task,
        state=model.state,
        active=model.active,
        host=model.host,
        port=model.port,
        served_name=model.served_name,
        api_key=model.api_key,
        paths=dict(model.paths),
        fraction=model.progress.fraction if model.progress else 0.0,
        detail=model.message,
        create_time=model.create_time,
        on_demand=model.spec.load_on_demand,
    )
