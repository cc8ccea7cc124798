"""Carries out a launch as the adapters' seam describes it: spawn, follow the log, ask, stop. One thread, no runner."""

import http.client
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from slipway_runner.backends.base import (
    Backend,
    End,
    Format,
    Found,
    HttpQuestion,
    Judgement,
    Launch,
    LaunchPlan,
    ModelFiles,
    Stdin,
    Task,
)
from slipway_runner.process.ports import Ports
from slipway_runner.progress.kernel import FileWatch
from slipway_runner.progress.parse import Lines
from slipway_runner.progress.signals import Cause, LoadStage, Ready, Shards, Signal
from slipway_runner.progress.tracker import LoadProgress, Tracker

LOOK_SECONDS = 0.01  # between two looks at log and port
START_SECONDS = 200.0  # for a start of the slowest; a test has its own, shorter timeout


PORTS = Ports()  # what was chosen for a plan is nobody else's before its backend listens, and after it has ended
PATIENCE_SECONDS = 60.0  # with the signal that is to end it


def model_files(*weights: Path, architecture: str = "", mmproj: Path | None = None) -> ModelFiles:
    formats = {".gguf": Format.GGUF, ".safetensors": Format.SAFETENSORS}
    return ModelFiles(
        name=weights[0].parent.name,
        root=weights[0].parent,
        format=formats[weights[0].suffix],
        weights=weights,
        size_bytes=sum(path.stat().st_size for path in weights if path.exists()),
        architecture=architecture,
        mmproj=mmproj,
    )


def make_plan(found: Found, files: ModelFiles, scratch: Path, task: Task = Task.GENERATE) -> LaunchPlan:
    scratch.mkdir(exist_ok=True)
    return LaunchPlan(
        found=found,
        files=files,
        task=task,
        served_name="a-model",
        port=PORTS.hold(),
        api_key="a-key",
        scratch=scratch,
    )


@dataclass
class Running:
    """A backend under way, and all that it has said."""

    backend: Backend
    launch: Launch
    process: "subprocess.Popen[bytes]"
    log: Path
    fifo: Path
    files: ModelFiles
    signals: list[Signal] = field(default_factory=list)
    progress: list[LoadProgress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pidfd = os.pidfd_open(self.process.pid)
        self._log = self.log.open("rb")
        self._lines = Lines()
        usual = self.backend.usual_seconds(self.files.size_bytes)
        self._tracker = Tracker(usual, measured=False, now=time.monotonic())
        self._kernel = FileWatch(self.files.weights)

    @property
    def causes(self) -> tuple[Cause, ...]:
        return tuple(one for one in self.signals if isinstance(one, Cause))

    @property
    def shards(self) -> list[tuple[int, int]]:
        """What was told of files, each state once."""
        told = [(one.done, one.total) for one in self.signals if isinstance(one, Shards)]
        return list(dict.fromkeys(told))

    def load(self) -> None:
        """Until it lives, and has carried out the `load` request if there is one."""
        self._until(lambda: self._ask(self.launch.liveness).good)
        if self.launch.load is not None:
            self._load(self.launch.load)

    def start(self) -> None:
        """Until it answers a real request, and its log, which may come later, says that it is ready.

        Raises AssertionError with its log if it does not.
        """
        self.load()
        self._until(lambda: self._ask(self.launch.question).good)
        self._until(lambda: Ready() in self.signals)
        self._tracker.finish(time.monotonic())
        self.progress.append(self._tracker.progress(time.monotonic()))

    def fail(self) -> Cause:
        """Until it ends by itself; why, as its adapter explains it."""
        assert self.exited(START_SECONDS), self.said()
        self.follow()
        code = self.process.wait()
        end = End(exit_code=code) if code >= 0 else End(signal=-code)
        return self.backend.explain(end, self.causes, tuple(self.said().splitlines()))

    def stop(self, steps: int, *, farewell: bool = True) -> tuple[int, int]:
        """Climb the ladder, so many steps: the last has all the time that it needs on a busy host.

        Returns the exit code and how many steps it took.
        """
        if farewell and self.launch.farewell:
            with self.fifo.open("r+b", buffering=0) as fifo:
                fifo.write(self.launch.farewell)
        for taken, step in enumerate(self.backend.stop_ladder[:steps], 1):
            os.killpg(self.process.pid, step.signal)
            if self.exited(PATIENCE_SECONDS if taken == steps else step.wait_seconds):
                return self.process.wait(), taken
        raise AssertionError(f"{steps} steps did not end it: {self.said()}")

    def exited(self, seconds: float) -> bool:
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def answer(self, question: HttpQuestion) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.launch.host, self.launch.port, timeout=question.timeout)
        try:
            connection.request(question.method, question.path, question.body, dict(question.headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def follow(self) -> None:
        """Read what was written to the log meanwhile."""
        for line in self._lines.feed(self._log.read()):
            self._take(self.launch.reader.line(line))

    def close(self) -> None:
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
        self.process.wait()
        os.close(self._pidfd)
        self._log.close()

    def _until(self, good: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not good():
            assert not self.exited(LOOK_SECONDS), self.said()
            assert time.monotonic() < deadline, self.said()
            self.follow()
            self._take(self._kernel.scan([self.process.pid]))

    def _ask(self, question: HttpQuestion) -> Judgement:
        try:
            return question.judge(*self.answer(question))
        except OSError as error:
            return Judgement(good=False, why=str(error))

    def _load(self, question: HttpQuestion) -> None:
        connection = http.client.HTTPConnection(self.launch.host, self.launch.port, timeout=question.timeout)
        connection.request(question.method, question.path, question.body, dict(question.headers))
        with connection.getresponse() as response:
            assert response.status == 200
            for line in response:
                if line.startswith(b"data:"):
                    self._take(self.launch.reader.event(line.removeprefix(b"data:").strip().decode()))
        connection.close()

    def _take(self, signals: tuple[Signal, ...]) -> None:
        for one in signals:
            self.signals.append(one)
            self._tracker.feed(one, time.monotonic())
            self.progress.append(self._tracker.progress(time.monotonic()))

    def assert_went_forward(self) -> None:
        """From 0 to 1, through the stages in their order, never back."""
        fractions = [one.fraction for one in self.progress]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        stages = list(dict.fromkeys(one.stage for one in self.progress))
        assert stages == sorted(stages, key=list(LoadStage).index)
        assert stages[-1] is LoadStage.WARMING_UP


@contextmanager
def running(backend: Backend, plan: LaunchPlan, *, extra: tuple[str, ...] = ()) -> Iterator[Running]:
    """Spawn it; `extra` arguments are given besides those of the adapter. It is killed in the end."""
    launch = backend.launch(plan)
    launch = replace(launch, argv=(*launch.argv, *extra))
    log, fifo = plan.scratch / "log", plan.scratch / "stdin"
    stdin = os.open(os.devnull, os.O_RDONLY)
    if launch.stdin is Stdin.FIFO:
        os.mkfifo(fifo)
        os.close(stdin)
        stdin = os.open(fifo, os.O_RDWR)
    with log.open("ab") as output:
        process = subprocess.Popen(
            launch.argv,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(launch.env),
            cwd=plan.scratch,
            start_new_session=True,
        )
    os.close(stdin)
    one = Running(backend=backend, launch=launch, process=process, log=log, fifo=fifo, files=plan.files)
    try:
        yield one
    finally:
        one.close()
