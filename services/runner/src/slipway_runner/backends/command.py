"""Any other inference server, as the operator describes it; Infinity comes described.

The command is a list of arguments, run without a shell. `{model}` (path of the snapshot), `{file}` (path of the first
weight file), `{name}` (what it is to be called), `{host}`, `{port}`, `{device}` (cpu or cuda) and `{scratch}` (a
directory of its own) are filled in. Nothing of it comes from whoever loads a model, except `{name}`, the model's id,
which is letters, digits, `.`, `_` and `-`, and is one argument or a part of one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from slipway_runner.backends import openai
from slipway_runner.backends.base import (
    End,
    Format,
    Found,
    Host,
    HttpQuestion,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Reader,
    Settings,
    StartLimits,
    StopStep,
    Task,
    post,
)
from slipway_runner.backends.ends import Sign, explain_end, read_cause, read_python_cause
from slipway_runner.backends.flags import flag_arguments
from slipway_runner.backends.patterns import ProgressPattern, read_progress
from slipway_runner.backends.programs import candidates, distributions, missing_kinds
from slipway_runner.backends.python_server import ENVIRONMENT, bar_signals, offline_environment
from slipway_runner.backends.settings import refuse_remote_code, refuse_settings
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.parse import parse_bar
from slipway_runner.progress.signals import Cause, LoadStage, Signal

LIMITS = StartLimits(stall_seconds=300.0, floor_seconds=300.0)
"""Most such servers say nothing while they load; the kernel sees them read."""

PLACEHOLDERS = frozenset({"model", "file", "name", "host", "port", "device", "scratch"})

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

_READ_CHARACTERS = 2000
"""Of a line that the operator's expressions are tried on; one with a bad expression takes its time with longer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A real request: POST `body`, a JSON object with placeholders in its texts, to `path`."""

    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandBackend:
    """A server that the configuration describes.

    Attributes:
        program: the first argument: a name on the search path, or an absolute path.
        arguments: the others, with placeholders.
        paths: its HTTP path for each of the gateway's paths, by task; the tasks are those it can do.
        formats: the weights it reads.
        kinds: the devices it runs on.
        health: the path that answers 2xx once it serves.
        question: the request whose good answer makes a model LOADED; None is OpenAI's smallest of the task.
        environment: its variables, with the same placeholders.
        api_key_variable: the variable that it takes a key from; "" if it knows none.
        distribution: the Python distribution whose version is shown; "" if it is none.
        progress: what its lines say of a load, besides tqdm's bars.
        failures: what its lines say of a failure, besides Python's exceptions.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    paths: Mapping[Task, Mapping[str, str]]
    formats: frozenset[Format]
    kinds: frozenset[DeviceKind] = frozenset({DeviceKind.CPU})
    health: str = "/health"
    question: Question | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    api_key_variable: str = ""
    distribution: str = ""
    progress: tuple[ProgressPattern, ...] = ()
    failures: tuple[Sign, ...] = ()
    stop_ladder: tuple[StopStep, ...] = (StopStep(SIGTERM, 30.0), StopStep(SIGKILL, 20.0))
    start_limits: StartLimits = LIMITS

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those it has paths for."""
        return tuple(task for task in Task if task in self.paths)

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
        where = "" if Path(self.program).is_absolute() else " on the search path"
        return NotUsable(backend=self.name, why=f"there is no {self.program}{where}")

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """As described."""
        if files.format not in self.formats:
            return f"{self.name} does not read {files.format}"
        if task not in self.paths:
            return f"{self.name} has no endpoint to {task}"
        missing = missing_kinds(found, devices)
        return f"{self.name} does not run on {', '.join(sorted(missing))}" if missing else None

    def context_tokens(self, _settings: Settings, _flags: Mapping[str, str], /) -> None:
        """It cannot be told."""

    def launch(self, plan: LaunchPlan) -> Launch:
        """Fill in the placeholders."""
        refuse_settings(plan, takes=("device",))
        refuse_remote_code(plan.files, allowed=plan.trust_remote_code)
        values = _values(plan)
        key = plan.api_key if self.api_key_variable else None
        own = {
            **offline_environment(plan),
            **{name: fill(value, values) for name, value in self.environment.items()},
            **({self.api_key_variable: key} if key else {}),
        }
        return openai.launch(
            plan,
            argv=(
                *plan.found.program,
                *(fill(argument, values) for argument in self.arguments),
                *flag_arguments({}, plan.flags, backend=self.name),
            ),
            environment=own,
            rules=ENVIRONMENT,
            reader=CommandReader(self.progress, self.failures),
            model_path=plan.files.weights[0] if self._takes_file else None,
            health=self.health,
            question=_question(self.question, values, key) if self.question else None,
            api_key=key,
            paths=self.paths[plan.task],
        )

    @property
    def _takes_file(self) -> bool:
        return any("{file}" in text for text in (*self.arguments, *self.environment.values()))

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """By what its lines were said to mean, by what Python programs say, and by how it ended."""
        return explain_end(end, causes, last_lines)


class CommandReader(Reader):
    """Reads the log of a server by what is described of it, and by bars and exceptions, which many have in common."""

    def __init__(self, progress: tuple[ProgressPattern, ...] = (), failures: tuple[Sign, ...] = ()) -> None:
        self._progress = progress
        self._failures = failures

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if told := read_progress(self._progress, text[:_READ_CHARACTERS]):
            return told
        if bar := parse_bar(text):
            return tuple(bar_signals(bar))
        cause = read_cause(self._failures, text[:_READ_CHARACTERS]) or read_python_cause(text)
        return (cause,) if cause else ()


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{name}` that `values` has; other braces, as JSON has them, stay."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def unknown_placeholders(text: str) -> list[str]:
    """What stands in braces as a placeholder does, and is none."""
    return [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]


def _question(question: Question, values: Mapping[str, str], key: str | None) -> HttpQuestion:
    return post(
        question.path,
        _filled(question.body, values),
        headers=openai.bearer(key),
        timeout=openai.QUESTION_SECONDS,
        judge=openai.judge_answer,
    )


def _filled(document: Any, values: Mapping[str, str]) -> Any:
    match document:
        case str():
            return fill(document, values)
        case Mapping():
            return {name: _filled(member, values) for name, member in document.items()}
        case list() | tuple():
            return [_filled(member, values) for member in document]
        case _:
            return document


def _values(plan: LaunchPlan) -> Mapping[str, str]:
    on_cpu = plan.settings.device is DeviceKind.CPU or not plan.devices
    return {
        "model": str(plan.files.root),
        "file": str(plan.files.weights[0]),
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
