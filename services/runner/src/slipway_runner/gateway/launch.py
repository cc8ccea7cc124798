"""The gateway's process, as the runner starts it, finds it again, and ends it.

It leads a session of its own and outlives the runner. What tells it from other processes is a tag in its environment,
so it is found even when it hangs or its socket was removed; see `members`.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import anyio
from slipway_service.state_dir import StartError
from slipway_service.values import ListenAddress

from slipway_runner.gateway import control
from slipway_runner.gateway.ask import UNANSWERED, ask
from slipway_runner.process import members, pidfd, proc
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.members import Family
from slipway_runner.process.running import Running
from slipway_runner.process.spawn import Child

START_SECONDS = 20.0
"""For a new process to answer on its socket; its imports take half a second."""

END_SECONDS = 10.0
"""For a process to end after the time that its answers may take; then it is killed."""

STALL_SECONDS = 60
"""That a client may take nothing of what was sent to it (TCP_USER_TIMEOUT, tcp(7)), before its connection is cut and
its request in the backend with it. nginx's send_timeout has the same."""

KEEPALIVE_SECONDS = 30
"""After which a silent connection is probed: a client whose host has vanished while it waits for its first byte."""

_BACKLOG = 1024

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
"""What the process gets of the runner's environment, which may hold tokens that a server of HTTP has no use for."""

_TAG = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a gateway is started with. One that was started with something else is replaced."""

    listen: ListenAddress
    api_key_file: Path | None = None
    version: str = field(default_factory=lambda: metadata.version("slipway-runner"))

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the command line."""
        keys = ("--api-key-file", str(self.api_key_file.absolute())) if self.api_key_file else ()
        return ("--setup", str(self), *keys)

    def __str__(self) -> str:
        return f"version {self.version} on {self.listen}, keys in {self.api_key_file and self.api_key_file.absolute()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A gateway that answers: its process, where it listens, and what it was started with."""

    running: Running
    address: ListenAddress
    setup: str


class Place:
    """Where a runner's gateway is found: in its state directory, which must be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.socket = self.folder / control.SOCKET
        self.log = LogFile(self.folder / "gateway.log")

    @property
    def instance(self) -> str:
        """The tag of every gateway of this place."""
        return f"gateway of {self.folder}"

    async def find(self) -> Serving | None:
        """The gateway that answers on the socket, if there is one."""
        try:
            return _serving(await ask(self.socket, "GET", "/hello"), None)
        except (*UNANSWERED, KeyError):
            return None  # nobody, or one that speaks another language

    async def clear(self) -> None:
        """Kill what is left of gateways that do not answer."""
        for found in members.tagged(self.instance).values():
            for one in found:
                pidfd.send(one, signal.SIGKILL)
            await pidfd.all_exited(found)

    async def start(self, setup: Setup, listen: ListenAddress) -> Serving:
        """Start one; returns when it serves.

        Args:
            setup: what it is started with.
            listen: where it listens; the address of `setup`, or the port that was chosen for its 0.

        Raises:
            StartError: the address is taken, or the process does not come up.
        """
        log_start = self.log.size()
        with ExitStack() as ours:
            public = ours.enter_context(listen_on(listen))
            private = ours.enter_context(self._private())
            child = await anyio.to_thread.run_sync(self._spawn, setup, public, private)
        # From here on the process alone holds the sockets: if it ends, whoever waits on them is told.
        with anyio.move_on_after(START_SECONDS):
            try:
                said = await ask(self.socket, "GET", "/hello", patience=START_SECONDS)
                return _serving(said, child)
            except UNANSWERED:
                pass
        pidfd.send(child.family.leader, signal.SIGKILL)
        await pidfd.exited(child.family.leader)
        child.reap()
        last = self.log.read(log_start).data.decode(errors="replace").strip().splitlines()[-1:]
        raise StartError(f"the gateway does not come up: {last[0] if last else 'it said nothing'} ({self.log.path})")

    async def retire(self, serving: Serving, seconds: float) -> None:
        """Have it take no more connections, which is so on return, and end when all answers under way have ended.

        Args:
            serving: it.
            seconds: that those may take.
        """
        try:
            await ask(self.socket, "POST", "/stop", {"seconds": seconds})
            self.socket.rename(self._retired(serving))
        except UNANSWERED:
            pidfd.send(serving.running.family.leader, signal.SIGKILL)
            await serving.running.ended()

    async def end(self, serving: Serving, seconds: float) -> None:
        """The same, wait until it has ended, and leave nothing of it behind."""
        await self.retire(serving, seconds)
        with anyio.move_on_after(seconds + END_SECONDS):
            await serving.running.ended()
        pidfd.send(serving.running.family.leader, signal.SIGKILL)
        await serving.running.ended()
        serving.running.reap()
        self._retired(serving).unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        self.log.path.unlink(missing_ok=True)

    def retired(self) -> list[Path]:
        """Sockets of the gateways that finish what they have begun, or have ended meanwhile."""
        return sorted(self.folder.glob(control.RETIRED.format(pid="*")))

    def _retired(self, serving: Serving) -> Path:
        return self.folder / control.RETIRED.format(pid=serving.running.pid)

    def _private(self) -> socket.socket:
        self.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(listener.fileno(), 0o600)  # of the file that bind makes; with a umask that allows it
        with control.reachable(self.socket) as place:
            listener.bind(place)
        listener.listen()
        return listener

    def _spawn(self, setup: Setup, public: socket.socket, private: socket.socket) -> Child:
        command = [sys.executable, "-P", "-m", "slipway_runner.gateway", *setup.arguments]
        command += ["--public", str(public.fileno()), "--control", str(private.fileno()), "--log", str(self.log.path)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with self.log.path.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(public.fileno(), private.fileno()),
                env={**environment, members.RUNNER_TAG: self.instance, members.FAMILY_TAG: _TAG},
                cwd=self.folder,
                start_new_session=True,
            )
        return Child(_family(process.pid), process)


def listen_on(address: ListenAddress, *, stall_seconds: int = STALL_SECONDS) -> socket.socket:
    """A listening socket, whose connections end with clients that have vanished or take nothing.

    Raises:
        StartError: the address is taken, or none of this host.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit these.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_seconds * 1000)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    try:
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(
            f"the gateway cannot listen on {address}: {error.strerror}. Stop the other program, or choose another "
            "--gateway-listen"
        ) from None
    return listener


def _family(pid: int) -> Family:
    leader = proc.stat(pid)
    if leader is None:
        raise ProcessLookupError(f"/proc has no process {pid}; is it mounted with hidepid?")
    return Family(leader=leader.id, tag=_TAG)


def _serving(said: dict[str, str], child: Child | None) -> Serving:
    running = Running.started(child) if child else Running.found(_family(int(said["pid"])))
    return Serving(running=running, address=ListenAddress.parse(said["address"]), setup=said["setup"])
