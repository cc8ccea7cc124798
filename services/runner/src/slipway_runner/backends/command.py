"""Any other inference server, as the operator describes it; Infinity comes described.

The command is a list of arguments, run without a shell. `{model}` (path of the snapshot), `{name}` (what it is to be
called), `{host}`, `{port}`, `{device}` (cpu or cuda) and `{scratch}` (a directory of its own) are filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM

from slipway_runner.backends import openai
from slipway_runner.backends.base import (
    End,
    Format,
    Found,
    Host,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Reader,
    StartLimits,
    Stdin,
    StopStep,
    Task,
)
from slipway_runner.backends.ends import explain_end, read_python_cause
from slipway_runner.backends.environment import build_environment
from slipway_runner.backends.flags import flag_arguments
from slipway_runner.backends.programs import candidates, distributions
from slipway_runner.backends.python_server import ENVIRONMENT, bar_signals, offline_environment
from slipway_runner.backends.settings import refuse_remote_code, refuse_settings
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.parse import parse_bar
from slipway_runner.progress.signals import Cause, LoadStage, Signal

LIMITS = StartLimits(stall_seconds=300.0, floor_seconds=300.0)
"""Most such servers say nothing while they load; the kernel sees them read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandBackend:
    """A server that the configuration describes.

    Attributes:
        program: the first argument: a name on the search path, or a path.
        arguments: the others, with placeholders.
        paths: its HTTP path for each of the gateway's paths, by task; the tasks are those it can do.
        formats: the weights it reads.
        kinds: the devices it runs on.
        liveness: the path that answers 2xx once it serves.
        environment: its variables, with the same placeholders.
        api_key_variable: the variable that it takes a key from; "" if it knows none.
        distribution: the Python distribution whose version is shown; "" if it is none.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    paths: Mapping[Task, Mapping[str, str]]
    formats: frozenset[Format]
    kinds: frozenset[DeviceKind] = frozenset({DeviceKind.CPU})
    liveness: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)
    api_key_variable: str = ""
    distribution: str = ""
    stop_ladder: tuple[StopStep, ...] = (StopStep(SIGTERM, 30.0), StopStep(SIGKILL, 20.0))
    start_limits: StartLimits = LIMITS

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """Nothing is known of it."""
        return {
            LoadStage.STARTING: 5.0,
            LoadStage.LOADING_WEIGHTS: 1.0 + size_bytes / 1e9,
            LoadStage.WARMING_UP: 2.0,
        }

    def find(self, host: Host) -> Found | NotUsable:
        """Look for the program; it is not run."""
        for program in candidates(host, self.name, self.program):
            version = distributions(program).get(self.distribution, "") if self.distribution else ""
            return Found(backend=self.name, version=version or "unknown", program=(str(program),), kinds=self.kinds)
        return NotUsable(backend=self.name, why=f"there is no {self.program} on the search path")

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """As described."""
        if files.format not in self.formats:
            return f"{self.name} does not read {files.format}"
        if task not in self.paths:
            return f"{self.name} has no endpoint to {task}"
        wanted = {device.kind for device in devices} or {DeviceKind.CPU}
        missing = wanted - found.kinds
        return f"{self.name} does not run on {', '.join(sorted(missing))}" if missing else None

    def launch(self, plan: LaunchPlan) -> Launch:
        """Fill in the placeholders."""
        refuse_settings(plan, takes=("device",))
        refuse_remote_code(plan.files, allowed=plan.trust_remote_code)
        values = _values(plan)
        key = plan.api_key if self.api_key_variable else None
        own = {
            **offline_environment(plan),
            **{name: value.format_map(values) for name, value in self.environment.items()},
            **({self.api_key_variable: key} if key else {}),
        }
        paths = self.paths[plan.task]
        return Launch(
            argv=(
                *plan.found.program,
                *(argument.format_map(values) for argument in self.arguments),
                *flag_arguments({}, plan.flags, backend=self.name),
            ),
            env=build_environment(plan, own, ENVIRONMENT),
            stdin=Stdin.NULL,
            host=plan.host,
            port=plan.port,
            model_field=plan.served_name,
            api_key=key,
            liveness=openai.liveness(self.liveness),
            question=openai.question(plan.task, plan.served_name, key, paths),
            reader=CommandReader(),
            paths=paths,
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """By what Python programs say, and by how it ended."""
        return explain_end(end, causes, last_lines)


class CommandReader(Reader):
    """Reads the log of a server of which nothing is known: bars of loading, and Python's exceptions."""

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if bar := parse_bar(text):
            return tuple(bar_signals(bar))
        cause = read_python_cause(text)
        return (cause,) if cause else ()


def _values(plan: LaunchPlan) -> Mapping[str, str]:
    on_cpu = plan.settings.device is DeviceKind.CPU or not plan.devices
    return {
        "model": str(plan.files.root),
        "name": plan.served_name,
        "host": plan.host,
        "port": str(plan.port),
        "device": "cpu" if on_cpu else "cuda",
        "scratch": str(plan.scratch),
    }


INFINITY = CommandBackend(
    name="infinity",
    program="infinity_emb",
    # infinity-emb 0.0.78, run: BetterTransformer is gone from newer torch; code of repositories is trusted by default.
    arguments=(
        *("v2", "--model-id", "{model}", "--served-model-name", "{name}", "--host", "{host}", "--port", "{port}"),
        *("--device", "{device}", "--engine", "torch", "--no-bettertransformer", "--no-trust-remote-code"),
    ),
    paths={Task.EMBED: {"/v1/embeddings": "/embeddings"}, Task.RERANK: {"/v1/rerank": "/rerank"}},
    formats=frozenset({Format.SAFETENSORS, Format.PYTORCH}),
    kinds=frozenset({DeviceKind.CPU, DeviceKind.CUDA, DeviceKind.ROCM}),
    api_key_variable="INFINITY_API_KEY",
    distribution="infinity-emb",
    # It ends within a second.
    stop_ladder=(StopStep(SIGTERM, 10.0), StopStep(SIGKILL, 20.0)),
)
"""Embeddings and reranking with torch."""
