"""Configuration: command line before environment before TOML file before default, from one description of each option.

A service subclasses `ServiceSettings`; every field is an option with a description. From the field come the flag
(`--metrics-listen`), the variable (`SLIPWAY_REGISTRY_METRICS_LISTEN`), the TOML key (`metrics_listen`), the line of
`--help` and the row of the table in the documentation. Whatever is not known is refused by name.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, get_origin

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from slipway_service.logs import LogFormat, LogLevel
from slipway_service.streaming import STALL_LIMIT
from slipway_service.values import Duration, Listen, ListenAddress

PROGRAMS = ("SLIPWAY_REGISTRY_", "SLIPWAY_RUNNER_")
"""The prefixes of the services' options. A service leaves the other's alone and checks its own."""

OTHER_VARIABLES = frozenset(
    {"SLIPWAY_REGISTRY", "SLIPWAY_RUNNER", "SLIPWAY_HF_TOKEN", "SLIPWAY_CONFIG", "SLIPWAY_PRELOAD"}
)
"""Variables without a service's prefix: those of the `slipway` command, and the list of models to preload."""

_NO_FILE: Mapping[str, Any] = MappingProxyType({})
_file: ContextVar[Mapping[str, Any]] = ContextVar("file", default=_NO_FILE)
"""What the TOML file holds, while settings are loaded: pydantic-settings asks for sources without arguments."""

S = TypeVar("S", bound="Settings")


class UsageError(Exception):
    """The program was called wrongly. Each argument is a line about one thing: how to do it right."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Settings(BaseSettings):
    """Base of all settings: where values come from, and that unknown ones are errors."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, enable_decoding=False, validate_default=True)

    program: ClassVar[str] = "slipway-service"
    """The program's name; its variables begin with it in capitals."""

    internal: ClassVar[frozenset[str]] = frozenset()
    """Variables with the program's prefix that are no options: what it sets for processes that it starts."""

    @classmethod
    def prefix(cls) -> str:
        """What the program's variables begin with: `SLIPWAY_REGISTRY_`."""
        return cls.program.upper().replace("-", "_") + "_"

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then file."""
        environment = EnvSettingsSource(settings_cls, env_prefix=cls.prefix())
        return init_settings, environment, InitSettingsSource(settings_cls, init_kwargs=dict(_file.get()))

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: Any) -> Any:
        """Lists are comma-separated where they come as text."""
        for name, field in cls.model_fields.items():
            if is_list(field) and isinstance(given := values.get(name), str):
                values[name] = [part.strip() for part in given.split(",") if part.strip()]
        return values


class ServiceSettings(Settings):
    """What both services are configured with."""

    insecure: bool = Field(
        default=False,
        description="Allow listening beyond loopback although anybody who reaches the port may then call everything.",
    )
    listen: Listen = Field(description="Where gRPC is served; port 0 picks a free one.")
    metrics_listen: Listen = Field(description="Where Prometheus metrics are served, over HTTP; 0 as above.")
    state_dir: Path = Field(
        description="Directory for what outlives the service, its `address` and `addresses.json`, and its admin socket."
    )
    drain_notice: Duration = Field(
        default=0.0,
        ge=0,
        le=60,
        description="On shutdown, how long calls are still taken after health says NOT_SERVING, for load balancers.",
    )
    drain_grace: Duration = Field(
        default=10.0, ge=0, description="On shutdown, how long calls in progress may take to end. Watches end at once."
    )
    stall_limit: Duration = Field(
        default=STALL_LIMIT,
        gt=0,
        description="How long a stream waits for a client that reads nothing, then ends; more than 0.",
    )
    log_format: LogFormat = Field(default=LogFormat.CONSOLE, description="How log lines look on standard error.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description="From which level on lines are logged.")

    @field_validator("*")
    @classmethod
    def _loopback_unless_insecure(cls, value: Any, info: ValidationInfo) -> Any:
        """`insecure` is the first field, so that it is known here."""
        if isinstance(value, ListenAddress) and not value.is_loopback and info.data.get("insecure") is False:
            raise ValueError(
                f"{value} can be reached from other hosts, and there is no TLS or authentication yet: "
                "listen on 127.0.0.1, or say --insecure if the network is trusted"
            )
        return value

    @property
    def exposed(self) -> list[tuple[str, ListenAddress]]:
        """The addresses that other hosts may reach, each with its flag."""
        given = ((flag(name), getattr(self, name)) for name in type(self).model_fields)
        return [(name, it) for name, it in given if isinstance(it, ListenAddress) and not it.is_loopback]


def load(settings: type[S], flags: Mapping[str, Any], config: Path | None = None) -> S:
    """The settings in force.

    Args:
        settings: the program's settings.
        flags: what the command line gave, by field name; text is parsed like that of variables.
        config: the TOML file that the command line names; else the program's `…_CONFIG` variable, else none.

    Raises:
        UsageError: values are wrong or options unknown; all of them are told at once.
    """
    wrong = unknown_variables(settings, os.environ)
    variable = settings.prefix() + "CONFIG"
    path = config or (Path(os.environ[variable]) if os.environ.get(variable) else None)
    values = _read_file(path) if path else {}
    for key in sorted(values.keys() - settings.model_fields.keys()):
        wrong.append(f"{path}: {key} is no option of {settings.program}{_nearest(key, settings.model_fields)}")
        del values[key]
    token = _file.set(values)
    try:
        found = settings(**flags)
    except ValidationError as error:
        for each in error.errors():
            source = _source(settings, each["loc"], flags, path)
            wrong.append(source + each["msg"].removeprefix("Value error, "))
    finally:
        _file.reset(token)
    if wrong:
        raise UsageError(*wrong)
    return found


def unknown_variables(settings: type[Settings], names: Iterable[str]) -> list[str]:
    """What to say of variables that look like options and are none: which is the nearest that there is."""
    known = {variable(settings, name) for name in settings.model_fields} | {settings.prefix() + "CONFIG"}
    passed = OTHER_VARIABLES | settings.internal
    others = tuple(prefix for prefix in PROGRAMS if prefix != settings.prefix())
    return [
        f"{name} is no option of {settings.program}{_nearest(name, known)}"
        for name in sorted(names)
        if name.startswith("SLIPWAY_") and name not in known | passed and not name.startswith(others)
    ]


def flag(field: str) -> str:
    """The flag of a field."""
    return "--" + field.replace("_", "-")


def variable(settings: type[Settings], field: str) -> str:
    """The environment variable of a field."""
    return settings.prefix() + field.upper()


def is_list(field: FieldInfo) -> bool:
    """Whether the option may be given several times."""
    return get_origin(field.annotation) in (list, tuple, set, frozenset)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _source(settings: type[Settings], place: tuple[int | str, ...], flags: Mapping[str, Any], path: Path | None) -> str:
    """Where a wrong value came from, as its user wrote it."""
    if not place:
        return ""
    field = str(place[0])
    if field in flags:
        return f"{flag(field)}: "
    if variable(settings, field) in os.environ:
        return f"{variable(settings, field)}: "
    if field in _file.get():
        return f"{path}: {'.'.join(map(str, place))}: "
    return f"{flag(field)}: "


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""
