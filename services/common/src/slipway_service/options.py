"""The one table of a program's options: for `--help`, for the documentation, and as the command line itself."""

import enum
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import click
from pydantic.fields import FieldInfo

from slipway_service.config import Settings, UsageError, flag, is_list, load, variable
from slipway_service.values import Kind

S = TypeVar("S", bound=Settings)

_NAMES = {bool: "", int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table."""

    field: str
    flag: str
    variable: str
    type: str
    default: str
    meaning: str
    is_flag: bool = False
    is_list: bool = False


def options(settings: type[Settings]) -> list[Option]:
    """Every option of a program, in the order of its fields, with `--config` first.

    Raises:
        TypeError: a field has no description.
    """
    config = Option(
        field="config",
        flag="--config",
        variable=settings.prefix() + "CONFIG",
        type="PATH",
        default="none",
        meaning="A TOML file with any of the options below, under their names with underscores.",
    )
    return [config, *(_option(settings, name, field) for name, field in settings.model_fields.items())]


def markdown(settings: type[Settings]) -> str:
    """The table for the documentation."""
    rows = [
        f"| `{option.flag}` | `{option.variable}` | {_cell(option.type)} | {_cell(option.default)} | {option.meaning} |"
        for option in options(settings)
    ]
    return "\n".join(["| option | environment | type | default | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def command(
    settings: type[S],
    run: Callable[..., None],
    *,
    name: str,
    help: str,  # noqa: A002
    fields: Collection[str] | None = None,
    parameters: Sequence[click.Parameter] = (),
) -> click.Command:
    """A command that takes the options of `settings` and runs with them.

    Nothing of these is parsed by click: values are parsed once, wherever they come from.

    Args:
        run: called with the settings, and with the command's own parameters by name.
        fields: the options that may be flags, where not all; `--config` is always.
        parameters: the command's own.
    """
    own = [str(parameter.name) for parameter in parameters]

    def call(config: Path | None, **given: Any) -> None:
        extra = {name: given.pop(name) for name in own}
        run(
            load(settings, {field: value for field, value in given.items() if value not in (None, ())}, config), **extra
        )

    return _Command(
        name=name,
        help=help,
        callback=call,
        params=[
            *parameters,
            *(_parameter(it) for it in options(settings) if fields is None or it.field in {"config", *fields}),
        ],
        context_settings={"max_content_width": 120},
    )


def main(program: click.Command, *, name: str) -> NoReturn:
    """Run a program and exit: 0 when it ended as it should, 2 with a line for each thing that was called wrongly."""
    try:
        program.main(prog_name=name, standalone_mode=False)
    except UsageError as error:
        _fail(name, *map(str, error.args))
    except click.ClickException as error:
        _fail(name, error.format_message())
    except click.Abort:
        sys.exit(130)  # as a shell reports SIGINT
    sys.exit(0)


def group(settings: type[Settings], *, help: str) -> click.Group:  # noqa: A002
    """A program of several commands, which tells its version with `--version`."""
    name = settings.program
    whole = click.Group(name=name, help=help)
    return click.version_option(package_name=name, prog_name=name, message="%(prog)s %(version)s")(whole)


class _Command(click.Command):
    """A command whose help shows default and variable of every option on a line of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [record for parameter in self.get_params(ctx) if (record := parameter.get_help_record(ctx))]
        with formatter.section("Options (command line before environment before --config file before default)"):
            formatter.write_dl(rows, col_max=36)


def _parameter(option: Option) -> click.Option:
    switch = f"{option.flag}/--no-{option.flag.removeprefix('--')}" if option.is_flag else option.flag
    return click.Option(
        [switch, option.field],
        default=None,
        is_flag=option.is_flag,
        multiple=option.is_list,
        metavar=option.type or None,
        type=None if option.is_flag else click.Path(path_type=Path) if option.field == "config" else str,
        help=f"{option.meaning} [{option.variable}, default: {option.default}]",
    )


def _option(settings: type[Settings], name: str, field: FieldInfo) -> Option:
    if not field.description:
        raise TypeError(f"{settings.__name__}.{name} needs a description")
    kind = next((found for found in field.metadata if isinstance(found, Kind)), None)
    default = field.get_default(call_default_factory=True, validated_data={})
    return Option(
        field=name,
        flag=flag(name),
        variable=variable(settings, name),
        type=kind.name if kind else _type_name(field.annotation),
        default="required" if field.is_required() else _shown(default, kind),
        meaning=field.description,
        is_flag=field.annotation is bool,
        is_list=is_list(field),
    )


def _type_name(annotation: Any) -> str:
    if annotation in _NAMES:
        return _NAMES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(choice.value) for choice in annotation)
    inner = [argument for argument in get_args(annotation) if argument not in (type(None), Ellipsis)]
    found = [
        kind.name for argument in inner for kind in getattr(argument, "__metadata__", ()) if isinstance(kind, Kind)
    ]
    return found[0] if found else _type_name(inner[0]) if inner else "TEXT"


def _shown(value: Any, kind: Kind | None) -> str:
    if value is None or value in ("", (), [], {}):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(str, value))
    return kind.show(value) if kind else str(value)


def _cell(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _fail(name: str, *problems: str) -> NoReturn:
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)  # noqa: T201 - nothing is configured yet, logging neither
    sys.exit(2)
