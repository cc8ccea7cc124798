"""What the runner needs to know of an inference server, and the values that cross this seam.

An adapter is a value. It spawns, polls and waits for nothing: it says which command to run, which HTTP request to
ask, which signals to send, and what a line of output means. Doing that is written once, in `models` and `process`.

How a launch is carried out (`Launch`):

1. spawn `argv` with exactly `env`, in a session of its own, stdout and stderr appended to its log file;
2. every complete line of that log (`progress.parse.Lines`) goes to `reader.line`, and what it returns to the tracker;
3. ask `liveness` until it is good; a `Ready` signal is a hint to ask at once;
4. if there is a `load` request, send it once; every `data:` line of its answer (server-sent events) goes to
   `reader.event`, and a `Cause` from it means that the load failed although the process lives;
5. ask `question`, a real request: its first good answer is what makes a model LOADED;
6. ask `in_force`, where there is one, and show what `reader.in_force` makes of it;
7. if the process ends, `Backend.explain` says why;
8. to stop it, write `farewell` to its FIFO, if there is one, and climb `Backend.stop_ladder`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.signals import Cause, LoadStage, Signal


class Task(StrEnum):
    """What a model is asked to do; the active model is one per task."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


class Format(StrEnum):
    """How the weights are stored."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files to serve, complete on this host.

    Attributes:
        name: for people: the repository's id or the path that was asked for.
        root: the snapshot's directory (or the directory of a local path); holds config and tokenizer.
        weights: absolute paths; the shards of a split file in their order.
        mmproj: the projector of a multimodal GGUF.
        size_bytes: of `weights` and `mmproj`.
        architecture: `LlamaForCausalLM` of config.json, or `general.architecture` of a GGUF; "" if unknown.
        remote_code: the repository brings Python code that its model needs (`auto_map` in config.json).
        ranks: the header of a GGUF says that it scores pairs (`<architecture>.pooling_type` is RANK, 4).
    """

    name: str
    root: Path
    format: Format
    weights: tuple[Path, ...]
    size_bytes: int
    mmproj: Path | None = None
    architecture: str = ""
    remote_code: bool = False
    ranks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The typed settings of a load; None leaves the backend's default.

    Attributes:
        context_length: tokens of prompt and answer that one request may have; >= 1.
        gpu_layers: layers held on a GPU (llama-server); 0 none, -1 all.
        device: the kind of device to run on; None takes the devices of the plan, else the CPU.
        dtype: `float32`, `float16`, `bfloat16`; what weights are converted to.
        tensor_parallel_size: GPUs that one layer is spread over; >= 1.
        parallel_requests: requests that are computed at the same time; >= 1.
        device_memory_share: of each device's memory that the backend may take (vLLM, SGLang); > 0, <= 1.
    """

    context_length: int | None = None
    gpu_layers: int | None = None
    device: DeviceKind | None = None
    dtype: str | None = None
    tensor_parallel_size: int | None = None
    parallel_requests: int | None = None
    device_memory_share: float | None = field(default=None, metadata={"shown": "gpu_memory_utilization"})


def shown_name(setting: Field[Any]) -> str:
    """What people know a field of `Settings` or of a spec as: its name in the contract."""
    return str(setting.metadata.get("shown", setting.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A program that was run to ask something about it. `exit_code` is None if it could not run or took too long."""

    exit_code: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where backends are looked for. `run` blocks for up to `seconds`: call `Backend.find` in a worker thread.

    Attributes:
        search_path: directories of programs, as in PATH.
        programs: the program of a backend as the operator configured it, by the backend's name; wins over all else.
        installed: the directory below which `make backends` puts each backend, by its name.
        devices: what the host has, see `devices.inventory`.
        run: runs argv with a bare environment and the given one, stdin closed.
    """

    search_path: tuple[Path, ...]
    run: "RunProgram"
    programs: Mapping[str, Path] = field(default_factory=dict)
    installed: Path | None = None
    devices: tuple[Device, ...] = ()


class RunProgram(Protocol):
    """Runs a program to its end; never raises for what the program does."""

    def __call__(self, argv: tuple[str, ...], *, seconds: float, env: Mapping[str, str]) -> Ran:
        """Run `argv`, for at most `seconds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A backend that can be used here.

    Attributes:
        program: what argv starts with.
        kinds: the devices that this build can use.
        flags: the options that `--help` lists; None if it was not asked.
    """

    backend: str
    version: str
    program: tuple[str, ...]
    kinds: frozenset[DeviceKind]
    flags: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUsable:
    """A backend that cannot be used here, and why, in words that say what to do."""

    backend: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """All that a command line is made of.

    Attributes:
        served_name: what the backend shall answer to in the `model` field (the model's id).
        flags, environment: the caller's extra ones; checked against the backend's allow-lists.
        operator_environment: what the operator gives to every backend (LD_LIBRARY_PATH, say); not checked.
        devices: what the model may use; empty means the CPU.
        port: on `host`, held for this process.
        api_key: a random one, `secrets.token_urlsafe()`.
        scratch: an existing directory of this model alone, for what the backend wants to write.
        trust_remote_code: the operator allows code from the repository.
    """

    found: Found
    files: ModelFiles
    task: Task
    served_name: str
    port: int
    api_key: str = field(repr=False)
    scratch: Path
    settings: Settings = Settings()
    flags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    operator_environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    host: str = "127.0.0.1"
    trust_remote_code: bool = False


class Stdin(Enum):
    """What a backend reads from."""

    NULL = "null"
    FIFO = "fifo"
    """A FIFO that the child itself holds open for reading and writing: it never reads its end, so it survives us."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an HTTP answer means: good, not yet (`cause` is None), or never (`cause` says why)."""

    good: bool
    why: str = ""
    cause: Cause | None = None


def judge_status(status: int, body: bytes) -> Judgement:
    """Judge an answer by its status alone: 2xx is good, anything else may become good."""
    if 200 <= status < 300:
        return Judgement(good=True)
    return Judgement(good=False, why=f"HTTP {status}: {body[:200].decode(errors='replace')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpQuestion:
    """A request to the backend's own port. `timeout` in seconds is for the whole answer.

    It does not hold for `Launch.load`, which may be silent for as long as the model's start timeout says.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = None
    timeout: float
    judge: Callable[[int, bytes], Judgement] = judge_status


def post(
    path: str,
    document: object,
    *,
    headers: Mapping[str, str],
    timeout: float,
    judge: Callable[[int, bytes], Judgement] = judge_status,
) -> HttpQuestion:
    """Return a POST of a JSON document."""
    return HttpQuestion(
        method="POST",
        path=path,
        headers={"Content-Type": "application/json", **headers},
        body=json.dumps(document).encode(),
        timeout=timeout,
        judge=judge,
    )


class Reader(Protocol):
    """Turns the output of one launch into signals; new for every launch, and fed from the log's first byte."""

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """Read one complete line of the log (stdout and stderr together), without its end."""

    def event(self, _data: str, /) -> tuple[Signal, ...]:
        """Read the data of one event of the answer to the `load` request; there is none by default."""
        return ()

    def in_force(self, _body: bytes, /) -> Mapping[str, str]:
        """Read the answer to `in_force`: settings by the names of `Settings`."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a backend and how to ask it; see the module's text for the order of things.

    Attributes:
        env: the whole environment of the process, but for the tag by which its members are found again.
        model_path: the file or directory that it is given.
        model_field: what the `model` field of requests must say (the gateway rewrites it).
        api_key: what `Authorization: Bearer` must carry; None if the backend knows no keys.
        paths: the HTTP paths that inference requests of the task go to, by the gateway's name for them.
        farewell: what to write to the FIFO just before the first step of the stop ladder, b"" if there is none.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    stdin: Stdin
    host: str
    port: int
    model_path: Path
    model_field: str
    api_key: str | None = field(repr=False)
    liveness: HttpQuestion
    question: HttpQuestion
    reader: Reader
    load: HttpQuestion | None = None
    in_force: HttpQuestion | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    farewell: bytes = b""


@dataclass(frozen=True, slots=True)
class StopStep:
    """Send `signal` to the process group and wait up to `wait_seconds` for all of it to be gone."""

    signal: Signals
    wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLimits:
    """When a start is given up: after `stall_seconds` without any news, or at its ceiling.

    The ceiling grows with the bytes to read, at a pace that even a slow network disk keeps.
    """

    stall_seconds: float
    floor_seconds: float
    slowest_bytes_per_second: int = 20_000_000

    def ceiling_seconds(self, size_bytes: int) -> float:
        """Return how long the whole start of a model of this size may take."""
        return self.floor_seconds + size_bytes / self.slowest_bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a process ended: by `exit_code`, or by `signal`; `oom_killed` if its cgroup counted an OOM kill."""

    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False


class Backend(Protocol):
    """An inference server."""

    @property
    def name(self) -> str:
        """The name that `LoadModel` and configuration use: `llama-server`."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be asked for, in the order of `Task`; of each model `suits` knows."""

    @property
    def stop_ladder(self) -> tuple[StopStep, ...]:
        """The steps that end it, the last one being SIGKILL."""

    @property
    def start_limits(self) -> StartLimits:
        """When a start is given up."""

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """Return how long the stages from STARTING on take with a model of this size, where nothing is known of it."""

    def find(self, host: Host) -> Found | NotUsable:
        """Look for it on this host; blocking."""

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """Return why it cannot run these files for this task on these devices, or None if it can."""

    def context_tokens(self, settings: Settings, flags: Mapping[str, str], /) -> int | None:
        """Return for how many tokens of context it takes memory, all requests together; None is its default."""

    def launch(self, plan: LaunchPlan) -> Launch:
        """Return how to start it; may read headers of the model's files (blocking, milliseconds).

        Raises Fault: FLAG_NOT_ALLOWED, ENVIRONMENT_NOT_ALLOWED, INVALID_FIELDS,
        REMOTE_CODE_REQUIRED, BACKEND_UNSUITABLE.
        """

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """Say why the process ended.

        `causes` are what its output named, in their order: since the start, or since it was LOADED if it was.
        """
