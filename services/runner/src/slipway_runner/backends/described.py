"""Backends as a TOML file describes them: a table for each server, see docs/backends.md."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from slipway_service.fault import Reason
from slipway_service.validation import resource_id
from slipway_service.values import Duration

from slipway_runner.backends.base import Format, StartLimits, StopStep, Task
from slipway_runner.backends.command import PLACEHOLDERS, CommandBackend, Question, unknown_placeholders
from slipway_runner.backends.ends import Sign
from slipway_runner.backends.openai import ENDPOINT_TASKS
from slipway_runner.backends.patterns import ProgressPattern, Unit
from slipway_runner.devices.device import DeviceKind
from slipway_runner.progress.signals import LoadStage

KILL_SECONDS = 20.0
"""That processes may take to go after SIGKILL, before they count as stuck in the kernel."""


class DescriptionError(Exception):
    """The file cannot be used; the text says where and why, in one line."""


def _template(text: str) -> str:
    if unknown := unknown_placeholders(text):
        known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
        raise ValueError(f"there is no placeholder {{{unknown[0]}}}; there are {known}")
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no path of HTTP; it begins with /")
    return text


def _program(text: str) -> str:
    if not text or ("/" in text and not Path(text).is_absolute()):
        raise ValueError(f"{text!r} is neither a name to look for on PATH nor an absolute path")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError(f"{text!r} is no name of a variable")
    return text


Template = Annotated[str, AfterValidator(_template)]
HttpPath = Annotated[str, AfterValidator(_path)]
Variable = Annotated[str, AfterValidator(_variable)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Question(_Table):
    path: HttpPath
    body: dict[str, Any]


class _Progress(_Table):
    pattern: re.Pattern[str]
    stage: LoadStage = LoadStage.LOADING_WEIGHTS
    unit: Unit = Unit.SHARDS
    ready: bool = False


class _Failure(_Table):
    pattern: re.Pattern[str]
    reason: Reason


class _Server(_Table):
    """One server. What each key means stands in docs/backends.md."""

    program: Annotated[str, AfterValidator(_program)]
    arguments: tuple[Template, ...] = ()
    environment: dict[Variable, Template] = Field(default_factory=dict)
    api_key_variable: Variable | None = None
    formats: frozenset[Format] = Field(min_length=1)
    devices: frozenset[DeviceKind] = frozenset({DeviceKind.CPU})
    paths: dict[str, HttpPath] = Field(min_length=1)
    health: HttpPath = "/health"
    question: _Question | None = None
    progress: tuple[_Progress, ...] = ()
    failures: tuple[_Failure, ...] = ()
    stall_timeout: Duration = Field(default=300.0, gt=0)
    start_timeout: Duration = Field(default=300.0, gt=0)
    stop_timeout: Duration = Field(default=30.0, gt=0)
    distribution: str = ""

    @model_validator(mode="after")
    def _asks_what_it_serves(self) -> Self:
        for path in self.paths:
            if path not in ENDPOINT_TASKS:
                raise ValueError(f"paths: the gateway has no {path}; it has {', '.join(ENDPOINT_TASKS)}")
        if self.question is None and "/v1/completions" not in self.paths and "/v1/chat/completions" in self.paths:
            raise ValueError("question: say which request shows that it serves; without /v1/completions none is known")
        if self.question is not None and len({ENDPOINT_TASKS[path] for path in self.paths}) > 1:
            raise ValueError("question: it is for one task; describe a server of several tasks once for each")
        return self


def read(path: Path, taken: Collection[str]) -> tuple[CommandBackend, ...]:
    """The backends that a file describes.

    Args:
        path: of the file.
        taken: names that other backends have.

    Raises:
        DescriptionError: the file cannot be read, or says what cannot be.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DescriptionError(f"{path}: {error}") from None
    try:
        return tuple(_backends(tables, taken))
    except ValueError as error:
        raise DescriptionError(f"{path}: {error}") from None


def _backends(tables: Mapping[str, Any], taken: Collection[str]) -> Iterator[CommandBackend]:
    for name, table in tables.items():
        try:
            resource_id(name)
            if name in taken:
                raise ValueError("there is a backend of that name; choose another")
            yield _backend(name, _Server.model_validate(table))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _backend(name: str, server: _Server) -> CommandBackend:
    paths: dict[Task, dict[str, str]] = {}
    for gateway_path, own in server.paths.items():
        paths.setdefault(ENDPOINT_TASKS[gateway_path], {})[gateway_path] = own
    return CommandBackend(
        name=name,
        program=server.program,
        arguments=server.arguments,
        paths=paths,
        formats=server.formats,
        kinds=server.devices,
        health=server.health,
        question=Question(path=server.question.path, body=server.question.body) if server.question else None,
        environment=server.environment,
        api_key_variable=server.api_key_variable or "",
        distribution=server.distribution,
        progress=tuple(
            ProgressPattern(pattern=one.pattern, stage=one.stage, unit=one.unit, ready=one.ready)
            for one in server.progress
        ),
        failures=tuple(Sign(one.pattern, one.reason) for one in server.failures),
        stop_ladder=(StopStep(SIGTERM, server.stop_timeout), StopStep(SIGKILL, KILL_SECONDS)),
        start_limits=StartLimits(stall_seconds=server.stall_timeout, floor_seconds=server.start_timeout),
    )
