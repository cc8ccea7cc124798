"""What every model's supervisor works with: the numbers, and the rest of the runner behind narrow doors."""

import errno
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from slipway_service.fault import Fault, Precondition, Reason

from slipway_runner.devices.device import Device
from slipway_runner.devices.reserve import Reservations
from slipway_runner.models.active import ActiveModels
from slipway_runner.models.ask import Asker
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Model
from slipway_runner.models.saved import Scribe
from slipway_runner.models.scan import MemberScan
from slipway_runner.models.snapshots import LocalPaths, NoRegistry, Snapshots
from slipway_runner.models.states import RestartPolicy, Rules
from slipway_runner.process.ports import Ports
from slipway_runner.progress.history import History
from slipway_runner.progress.signals import LoadStage
from slipway_runner.progress.tracker import LoadProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Times in seconds, sizes in bytes.

    Attributes:
        loads_at_once: loads beyond this many wait in QUEUED; more would only share one disk's bandwidth. One whose
            download is paused, or waits itself, does not count meanwhile.
        drain: how long requests in flight may take before a model is stopped.
        ask_pause, ask_pause_later, ask_eagerly: between two questions whether a starting backend answers: the first for
            `ask_eagerly` seconds, for who loads a small model waits for exactly this, then the second.
        log_pause, log_pause_later: between two looks into the log, while loading and after.
        progress_pause: between two reports while nothing but time passes.
        probe, probe_doubt: between two probes of a LOADED model, which find one that hangs (an end is known at once)
            and are most of what looking after it costs; after a bad one, and while UNHEALTHY.
        member_scan: between two searches for new members of a loaded backend.
        unhealthy: how long a model may be UNHEALTHY before it is killed.
        memory_return: how long device memory may take to come back after the processes are gone.
        log_keep: of a log on disk; when it has grown by twice as much, its head is given back.
        release_look: between two looks at a model that is to release its files and may not yet.
        use_scan: between two questions to the gateway which models are used; idle TTLs are that exact.
        shutdown: how long all models together may take to stop politely; then they are killed.
        kill: how long killing them may take.
        first_delay … window: see `states.Rules`.
    """

    loads_at_once: int = 2
    drain: float = 30.0
    ask_pause: float = 0.01
    ask_pause_later: float = 0.1
    ask_eagerly: float = 10.0
    log_pause: float = 0.05
    log_pause_later: float = 2.0
    progress_pause: float = 0.5
    probe: float = 15.0
    probe_doubt: float = 1.0
    member_scan: float = 5.0
    unhealthy: float = 60.0
    memory_return: float = 60.0
    log_keep: int = 64 << 20
    release_look: float = 1.0
    use_scan: float = 10.0
    shutdown: float = 90.0
    kill: float = 10.0
    first_delay: float = 2.0
    longest_delay: float = 60.0
    budget: int = 5
    window: float = 600.0
    bad_probes: int = 3

    def rules(self, policy: RestartPolicy) -> Rules:
        """The table's part of them."""
        return Rules(
            policy=policy,
            budget=self.budget,
            window=self.window,
            first_delay=self.first_delay,
            longest_delay=self.longest_delay,
            bad_probes=self.bad_probes,
        )


DEFAULT_NUMBERS = Numbers()


class Sink(Protocol):
    """Who is told what happens. Called synchronously, in order, from the event loop; must neither block nor raise."""

    def publish(self, model: Model) -> None:
        """A transition: the model as it is after it."""

    def progress(self, model_id: str, uid: str, progress: LoadProgress) -> None:
        """The newest progress of a load."""

    def removed(self, model_id: str, uid: str) -> None:
        """The model is no more, after its last transition (UNLOADED, or ERROR when the id is loaded anew)."""


Drain = Callable[[str, float], Awaitable[None]]
"""Stop sending requests to a model (by id) and return when those in flight are done, or after so many seconds."""

MemoryReturned = Callable[[Iterable[int], float], Awaitable[bool]]
"""Wait until no device shows memory of the pids any more, for so many seconds at most; whether that came true."""


async def no_drain(_model_id: str, _seconds: float) -> None:
    """Where no gateway sends requests there is nothing to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The same for all models of a runner.

    Attributes:
        state_dir: logs, FIFOs and scratch space of each model lie in `models/{uid}` below it.
        instance: this runner's tag; the same after a restart.
        tasks: where supervisors start what they do.
        devices: what the host has now; blocking, milliseconds.
        operator_environment: variables that every backend gets.
        wall: Unix time.
    """

    state_dir: Path
    instance: str
    numbers: Numbers
    backends: Backends
    sink: Sink
    tasks: TaskGroup
    asker: Asker
    scribe: Scribe
    history: History
    ports: Ports
    active: ActiveModels
    slots: anyio.CapacityLimiter
    members: MemberScan
    reservations: Reservations
    devices: Callable[[], tuple[Device, ...]]
    memory_returned: MemoryReturned
    snapshots: Snapshots = field(default_factory=NoRegistry)
    paths: LocalPaths = field(default_factory=LocalPaths)
    drain: Drain = no_drain
    cgroup_root: Path | None = None
    trust_remote_code: bool = False
    operator_environment: Mapping[str, str] = field(default_factory=dict)
    wall: Callable[[], float] = time.time

    def remember(self, model: str, seconds: Mapping[LoadStage, float]) -> None:
        """Keep how long the stages of a load took; nothing depends on it."""
        self.tasks.start_soon(self._remember, model, seconds)

    async def _remember(self, model: str, seconds: Mapping[LoadStage, float]) -> None:
        with suppress(OSError):
            await anyio.to_thread.run_sync(self.history.record, model, seconds)

    def make_folder(self, uid: str) -> None:
        """Make the model's own directory, if need be.

        Raises:
            Fault: DISK_FULL, DISK_FAULT.
        """
        folder = self.folder(uid)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            text = f"the state directory does not take {folder}: {error.strerror}"
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise Fault(Reason.DISK_FAULT, text) from error
            free = shutil.disk_usage(self.state_dir).free
            disk = Precondition("DISK", str(self.state_dir), f"{error.strerror}; free_bytes={free}")
            raise Fault(Reason.DISK_FULL, text, facts={"free": str(free)}, preconditions=(disk,)) from error

    async def remove_folder(self, folder: Path) -> None:
        """Remove a model's directory, which nobody will ask for again."""
        await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    def folder(self, uid: str) -> Path:
        """The model's own directory."""
        return self.state_dir / "models" / uid
