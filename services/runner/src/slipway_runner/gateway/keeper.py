"""The runner's side of its gateway: start it or find it, keep its table current, ask it to drain.

The process is a session of its own and outlives the runner; one that serves what is wanted is taken over as it is, so
that no stream is cut by a runner that was killed or upgraded.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import structlog
from slipway_service.state_dir import StartError
from slipway_service.values import ListenAddress

from slipway_runner.gateway import control
from slipway_runner.gateway.routes import Route
from slipway_runner.models.record import Model
from slipway_runner.models.spec import RepoSource
from slipway_runner.models.states import State
from slipway_runner.process import pidfd, proc
from slipway_runner.process.proc import ProcessId

START_SECONDS = 20.0
"""For a new process to answer on its socket; imports take one or two."""

REPLY_SECONDS = 5.0
"""For an answer on the socket; only a process that hangs takes longer."""

_RESTART_SECONDS = 1.0
"""Between the end of a gateway and its next start, so that one that cannot start does not spin."""

log = structlog.stdlib.get_logger("slipway.gateway")


@dataclass(frozen=True, slots=True)
class _Found:
    """A gateway that answers."""

    process: ProcessId
    address: str
    config: str
    protocol: int


class Gateway:
    """The gateway of this runner.

    Args:
        folder: the state directory; the socket and the log are in it.
        listen: where it is to serve.
        advertise: the host name that others reach it under; empty for the address it listens on.
    """

    def __init__(self, folder: Path, listen: ListenAddress, advertise: str = "") -> None:
        self._socket = folder / control.SOCKET
        self._log = folder / "gateway.log"
        self._listen = listen
        self._advertise = advertise
        self._address = ""
        self._process: ProcessId | None = None
        self._routes: dict[str, Route] = {}
        self._draining: set[str] = set()
        self._changed = anyio.Event()

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on."""
        return self._address

    @property
    def endpoint(self) -> str:
        """The base URL for OpenAI's clients, as other hosts reach it."""
        host, _, port = self._address.rpartition(":")
        return f"http://{self._advertise or host}:{port}/v1" if self._address else ""

    def update(self, model_id: str, model: Model | None) -> None:
        """A model has changed, or is gone. Told to the process as soon as possible, in order."""
        if model is None:
            self._routes.pop(model_id, None)
            self._draining.discard(model_id)
        else:
            self._routes[model_id] = _route(model)
            if model.state is State.LOADING:
                self._draining.discard(model_id)
        self._poke()

    async def drain(self, model_id: str, seconds: float) -> None:
        """Send no more requests to a model, and return when those in flight are done, or after so many seconds."""
        route = self._routes.get(model_id)
        if route is None:
            return
        self._draining.add(model_id)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            await self._push()
            await self._ask("POST", "/drain", {"uid": route.uid, "seconds": seconds}, patience=seconds + REPLY_SECONDS)

    async def use(self) -> Mapping[str, Mapping[str, float]]:
        """Requests in flight and last use (Unix seconds) of each model that was used, by uid.

        Raises:
            OSError, aiohttp.ClientError, TimeoutError: the gateway does not answer.
        """
        found: Mapping[str, Mapping[str, float]] = await self._ask("GET", "/use")
        return found

    async def start(self) -> None:
        """Take over a gateway that serves what is wanted, or start one.

        Raises:
            StartError: the address is taken, or it does not come up.
        """
        found = await self._find()
        if found is not None and (found.protocol, found.config) != (control.PROTOCOL, str(self._listen)):
            log.info("replacing the gateway of an earlier runner", pid=found.process.pid)
            await self._end(found.process)
            found = None
        if found is None:
            found = await self._spawn()
        else:
            log.info("gateway taken over", pid=found.process.pid, address=found.address)
        self._process, self._address = found.process, found.address

    async def keep(self) -> None:
        """Keep the table current, and start the process again when it ends; runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_alive)
            while True:
                changed = self._changed
                try:
                    await self._push()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    log.warning("the gateway did not take the table", error=repr(error))
                    with anyio.move_on_after(_RESTART_SECONDS):
                        await changed.wait()
                    continue
                await changed.wait()

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            await self._end(self._process)

    async def _keep_alive(self) -> None:
        while self._process is not None:
            await pidfd.exited(self._process)
            log.error("the gateway has ended; it is started again", log=str(self._log))
            await anyio.sleep(_RESTART_SECONDS)
            with suppress(StartError):
                host, _, port = self._address.rpartition(":")
                found = await self._spawn(ListenAddress(host.strip("[]"), int(port)))
                self._process, self._address = found.process, found.address
                self._poke()

    def _poke(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _push(self) -> None:
        await self._ask("PUT", "/table", {"routes": [route.to_json() for route in self._table()]})

    def _table(self) -> Iterable[Route]:
        return (replace(route, draining=route.id in self._draining) for route in self._routes.values())

    async def _ask(self, method: str, path: str, document: object = None, *, patience: float = REPLY_SECONDS) -> Any:
        with control.reachable(self._socket) as socket:
            connector = aiohttp.UnixConnector(socket)
            timeout = aiohttp.ClientTimeout(total=patience)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://gateway{path}", json=document, raise_for_status=True) as answer,
            ):
                return await answer.json()

    async def _find(self) -> _Found | None:
        try:
            said = await self._ask("GET", "/hello", patience=REPLY_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        found = proc.stat(int(said["pid"]))
        if found is None:
            return None
        return _Found(found.id, said["address"], said["config"], int(said["protocol"]))

    async def _spawn(self, listen: ListenAddress | None = None) -> _Found:
        listen = listen or self._listen
        command = [sys.executable, "-m", "slipway_runner.gateway", "--host", listen.host, "--port", str(listen.port)]
        command += ["--socket", str(self._socket), "--config", str(self._listen)]
        self._socket.unlink(missing_ok=True)

        def spawn() -> subprocess.Popen[bytes]:
            with self._log.open("ab") as output:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )

        process = await anyio.to_thread.run_sync(spawn)
        with anyio.move_on_after(START_SECONDS):
            while process.poll() is None:
                if (found := await self._find()) is not None:
                    return found
                await anyio.sleep(0.05)
        process.kill()
        tail = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise StartError(f"the gateway cannot serve on {listen}: {tail[0]}. Choose another --gateway-listen")

    async def _end(self, process: ProcessId) -> None:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            await self._ask("POST", "/stop")
        with anyio.move_on_after(START_SECONDS):
            await pidfd.exited(process)
            return
        pidfd.send(process, signal.SIGKILL)


@asynccontextmanager
async def open_gateway(
    folder: Path, listen: ListenAddress, *, advertise: str = "", keep: bool = False
) -> AsyncIterator[Gateway]:
    """The gateway, serving; stopped at the end unless it is to be kept for the next runner.

    Raises:
        StartError: it cannot serve.
    """
    gateway = Gateway(folder, listen, advertise)
    await gateway.start()
    async with AsyncExitStack() as stack:
        if not keep:
            stack.push_async_callback(gateway.stop)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(gateway.keep)
        try:
            yield gateway
        finally:
            tasks.cancel_scope.cancel()


def _route(model: Model) -> Route:
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
        detail=model.progress.detail if model.progress else "",
        create_time=model.create_time,
    )
