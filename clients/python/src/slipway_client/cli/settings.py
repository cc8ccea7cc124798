"""Where the services are: flag before environment before file before default."""

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway_client.address import target
from slipway_client.connection import checked_token

CONFIG_VARIABLE = "SLIPWAY_CONFIG"
SERVICE_PREFIXES = ("SLIPWAY_REGISTRY_", "SLIPWAY_RUNNER_")
"""Variables of the services themselves, which may share an environment with this command."""


class SettingsInvalid(Exception):
    """The configuration is wrong; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: a key of the file, its variable, and what holds without either."""

    key: str
    variable: str
    default: str
    meaning: str
    check: Callable[[str], object] = str
    """What the value has to pass; its ValueError says what is wrong, after where the value is from."""


TABLE: tuple[Setting, ...] = (
    Setting("registry", "SLIPWAY_REGISTRY", "127.0.0.1:50051", "address of the registry", target),
    Setting("runner", "SLIPWAY_RUNNER", "127.0.0.1:50061", "address of the runner", target),
    Setting(
        "hf_token",
        "SLIPWAY_HF_TOKEN",
        "",
        "your own Hub token, for repositories that the registry may not read",
        checked_token,
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command works with."""

    registry: str
    runner: str
    hf_token: str


def resolve(flags: Mapping[str, str | None], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings in force.

    Args:
        flags: values given on the command line, by key; None for those that were not.
        environment: the process's environment.
        config: the file named on the command line; it has to be there.

    Raises:
        SettingsInvalid: an unknown variable or key, an unreadable file, something that is no address or no token.
    """
    _refuse_unknown_variables(environment)
    file = _read(_path(environment, config), required=config is not None or CONFIG_VARIABLE in environment)
    values = {row.key: _first(row, flags, environment, file) for row in TABLE}
    return Settings(**values)


def _first(
    row: Setting, flags: Mapping[str, str | None], environment: Mapping[str, str], file: Mapping[str, str]
) -> str:
    flag = flags.get(row.key)
    if flag is not None:
        value, source = flag, f"--{row.key}"
    elif row.variable in environment:
        value, source = environment[row.variable], row.variable
    else:
        value, source = file.get(row.key, row.default), f"{row.key} of the configuration file"
    try:
        row.check(value)
    except ValueError as error:
        raise SettingsInvalid(f"{source}: {error}") from None
    return value


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = [CONFIG_VARIABLE, *(row.variable for row in TABLE)]
    for name in sorted(environment):
        if name.startswith("SLIPWAY_") and name not in known and not name.startswith(SERVICE_PREFIXES):
            raise SettingsInvalid(f"the variable {name} is not known{_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """A question for the name that is close to this one, if there is one; what all begin with makes none close."""
    by_rest = {one.removeprefix("SLIPWAY_"): one for one in known}
    found = difflib.get_close_matches(name.removeprefix("SLIPWAY_"), by_rest, n=1)
    return f"; did you mean {by_rest[found[0]]}?" if found else ""


def _path(environment: Mapping[str, str], config: Path | None) -> Path:
    if config is not None:
        return config
    if CONFIG_VARIABLE in environment:
        return Path(environment[CONFIG_VARIABLE])
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".config"
    return Path(base) / "slipway" / "config.toml"


def _read(path: Path, *, required: bool) -> Mapping[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsInvalid(f"{path}: there is no such file") from None
        return {}
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: {error}") from None
    keys = [row.key for row in TABLE]
    for key, value in content.items():
        if key not in keys:
            raise SettingsInvalid(f"{path}: the key {key} is not known{_nearest(key, keys)}")
        if not isinstance(value, str):
            raise SettingsInvalid(f"{path}: {key} is a string")
    return content
