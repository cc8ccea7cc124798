"""An adapter for `fake_server`, a sink that remembers, and a fleet on both."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import aiohttp
import anyio
from slipway_runner.backends.base import (
    Backend,
    End,
    Found,
    Host,
    HttpQuestion,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Settings,
    StartLimits,
    Stdin,
    StopStep,
    Task,
)
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.models.fleet import Fleet, open_fleet
from slipway_runner.models.means import Numbers
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Model
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.process import proc
from slipway_runner.progress.signals import Cause, Detail, LoadStage, Ready, Shards, Signal
from slipway_runner.progress.tracker import LoadProgress
from slipway_service.fault import Reason

SERVER = Path(__file__).with_name("fake_server.py")

# As in production, at a pace for tests.
QUICK = Numbers(
    probe=0.2,
    probe_doubt=0.05,
    member_scan=0.1,
    unhealthy=60.0,
    first_delay=0.05,
    longest_delay=0.2,
    log_pause=0.01,
    log_pause_later=0.05,
    drain=1.0,
    shutdown=20.0,
)

# For tests in which a backend falls silent; in all others, one that the machine does not run for a while is not ill.
ANXIOUS = replace(QUICK, unhealthy=0.6)


class FakeReader:
    """`SHARDS n/m`, `CAUSE text` and `READY` are all it knows."""

    def line(self, text: str) -> tuple[Signal, ...]:
        word, _, rest = text.partition(" ")
        match word:
            case "SHARDS":
                done, total = rest.split("/")
                return (Shards(int(done), int(total)),)
            case "CAUSE":
                return (Cause(Reason.BACKEND_ENGINE_DEAD, rest),)
            case "READY":
                return (Ready(),)
            case _:
                return (Detail(text),)

    def event(self, data: str) -> tuple[Signal, ...]:
        return ()

    def in_force(self, body: bytes) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, kw_only=True)
class FakeBackend:
    """Runs `fake_server` with a behaviour; a file named like a model overrides it (`behaviours[id]`).

    `patience` is with one answer to a probe.
    """

    name: str = "fake"
    tasks: tuple[Task, ...] = tuple(Task)
    behaviour: Mapping[str, Any] = field(default_factory=dict)
    behaviours: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stop_ladder: tuple[StopStep, ...] = (StopStep(SIGTERM, 1.0), StopStep(SIGKILL, 60.0))
    patience: float = 20.0
    start_limits: StartLimits = field(default_factory=lambda: StartLimits(stall_seconds=20.0, floor_seconds=60.0))

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        return {LoadStage.STARTING: 0.1, LoadStage.LOADING_WEIGHTS: 0.1}

    def find(self, host: Host) -> Found | NotUsable:
        return found(self.name)

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        return None

    def context_tokens(self, settings: Settings, flags: Mapping[str, str], /) -> int | None:
        return settings.context_length

    def launch(self, plan: LaunchPlan) -> Launch:
        behaviour = self.behaviours.get(plan.served_name, self.behaviour)
        return Launch(
            argv=(sys.executable, "-S", "-E", str(SERVER), str(plan.port), json.dumps(behaviour)),
            env={"PATH": os.environ["PATH"]},
            stdin=Stdin.FIFO,
            host=plan.host,
            port=plan.port,
            model_path=plan.files.root,
            model_field=plan.served_name,
            api_key=plan.api_key,
            liveness=HttpQuestion(method="GET", path="/health", timeout=self.patience),
            question=HttpQuestion(method="POST", path="/v1/ask", body=b"{}", timeout=5.0),
            reader=FakeReader(),
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        if causes:
            return causes[0]
        return Cause(Reason.BACKEND_EXITED, f"code {end.exit_code}, signal {end.signal}: {last_lines[-1:]}")


def found(name: str = "fake") -> Found:
    return Found(backend=name, version="1", program=(sys.executable,), kinds=frozenset({DeviceKind.CPU}))


def backends_of(*all_of_them: Backend) -> Backends:
    return Backends(adapters=all_of_them, found={one.name: found(one.name) for one in all_of_them})


def cpu(free: int = 1 << 40) -> tuple[Device, ...]:
    return (
        Device(
            uuid="cpu", kind=DeviceKind.CPU, index=0, name="CPU", memory_total=free, memory_used=0, memory_free=free
        ),
    )


@dataclass
class Seen:
    """A sink that keeps all it is told, and lets a test wait for what it wants to see."""

    models: list[Model] = field(default_factory=list)
    told: list[LoadProgress] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)
    _waited_for: dict[str, int] = field(default_factory=dict)

    def publish(self, model: Model) -> None:
        self.models.append(model)
        self._wake()

    def progress(self, model_id: str, uid: str, progress: LoadProgress) -> None:
        self.told.append(progress)
        self._wake()

    def removed(self, model_id: str, uid: str) -> None:
        self.gone.append((model_id, uid))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def states(self, model_id: str = "m") -> list[State]:
        """The states it went through; a state that was told twice in a row counts once."""
        every = [model.state for model in self.models if model.id == model_id]
        return [state for i, state in enumerate(every) if i == 0 or state is not every[i - 1]]

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        with anyio.fail_after(seconds):
            while not condition():
                await self._news.wait()

    async def until_true(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for what nobody tells the sink of."""
        with anyio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110
                await anyio.sleep(0.01)

    async def state(self, *wanted: State, model_id: str = "m", seconds: float = 60.0) -> Model:
        """Wait until the model is in one of these states; the first record that says so.

        One that came after what was last waited for counts, though the model may be further by now: some states last
        for milliseconds. If there is none, the newest may be it still.
        """

        def found() -> int | None:
            told = [number for number, model in enumerate(self.models) if model.id == model_id]
            seen = self._waited_for.get(model_id, -1)
            candidates = [number for number in told if number > seen] + told[-1:]
            return next((number for number in candidates if self.models[number].state in wanted), None)

        await self.until(lambda: found() is not None, seconds)
        number = found()
        assert number is not None
        self._waited_for[model_id] = number
        return self.models[number]


@dataclass
class Bench:
    """A fleet on fake backends, and what is needed to order and watch it."""

    fleet: Fleet
    seen: Seen
    backend: FakeBackend
    root: Path

    def spec(self, name: str = "m", **more: Any) -> Spec:
        path = self.root / f"{name}.gguf"
        path.write_bytes(b"GGUF" + bytes(1000))
        return replace(Spec(source=PathSource(path=path)), **more)

    async def load(self, model_id: str = "m", *, behave: Mapping[str, Any] | None = None, **more: Any) -> Model:
        """Load under an id, behaving so, and wait for LOADED or ERROR."""
        if behave is not None:
            self.backend.behaviours[model_id] = behave
        await self.fleet.load(self.spec(**more), model_id)
        return await self.seen.state(State.LOADED, State.ERROR, model_id=model_id)


async def told(on: Bench, **wanted: int) -> None:
    """Wait until the newest progress is of the weights, and so far."""

    def so_far() -> bool:
        newest = on.seen.told[-1] if on.seen.told else None
        return newest is not None and all(
            getattr(newest, name) == value for name, value in {"stage": LoadStage.LOADING_WEIGHTS, **wanted}.items()
        )

    await on.seen.until(so_far)


async def control(model: Model, **order: Any) -> Mapping[str, Any]:
    """Tell a running `fake_server` what to do; see its `do_POST`."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{model.port}/control", json=order) as response,
    ):
        document: Mapping[str, Any] = await response.json(content_type=None)
        return document


def tell_on(fleet: Fleet, model_id: str = "m") -> None:
    """The word that a `fake_server` waits for before it goes on with its steps."""
    with (fleet.supervisor(model_id).folder / "stdin").open("w") as stdin:
        stdin.write("go on\n")


@dataclass
class Clock:
    """What runs take for the time, so that no stall of the machine counts: seconds pass only when a test says so."""

    now: float = 0.0
    looks: int = 0

    async def passes(self, seconds: float) -> None:
        """Let them pass, and wait until whoever has patience has looked at the clock since."""
        self.now += seconds
        looks = self.looks
        with anyio.fail_after(30):
            while self.looks == looks:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def pids_of(model: Model) -> list[int]:
    """The server and the children that it made."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{model.port}/control/pids") as response,
    ):
        document = await response.json(content_type=None)
        return list(document["pids"])


def running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    found = proc.stat(pid)
    return found is not None and not found.ended


@asynccontextmanager
async def bench(
    root: Path, *, numbers: Numbers = QUICK, backend: FakeBackend | None = None, stop: bool = True, **more: Any
) -> AsyncIterator[Bench]:
    """A fleet whose state lies in `root/state` and whose models in `root/models`.

    Every backend is gone afterwards; with `stop=False` they run on, as after a crash of the runner.
    """
    backend = FakeBackend() if backend is None else replace(backend, behaviours=dict(backend.behaviours))
    seen = Seen()
    models = root / "models"
    models.mkdir(exist_ok=True)
    async with open_fleet(
        state_dir=root / "state",
        backends=backends_of(backend),
        sink=seen,
        numbers=numbers,
        paths=LocalPaths((models,)),
        **{"devices": cpu, **more},
    ) as fleet:
        try:
            yield Bench(fleet=fleet, seen=seen, backend=backend, root=models)
        finally:
            with anyio.CancelScope(shield=True):
                if stop:
                    await fleet.shutdown()
