"""`slipway-registry preload`: targets in, a filled cache out."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
import click
from slipway_service import logs, options
from slipway_service.config import UsageError
from slipway_service.groups import unwrapped
from slipway_service.logs import LogLevel
from slipway_service.state_dir import StartError
from slipway_service.values import parse_duration

from slipway_registry.config import RegistrySettings
from slipway_registry.opening import TakenError, UnusableError
from slipway_registry.preload import exits
from slipway_registry.preload.run import Wish, preload, say, until_signalled
from slipway_registry.preload.targets import Choice, targets

PATIENCE = "10m"
"""A registry waits a day for a Hub that is away; nobody waits that long for an image, and a next run goes on."""

_FIELDS = (
    "state_dir",
    "offline",
    "downloads",
    "files",
    "connections_per_file",
    "transport",
    "group_shared",
    "disk_reserve",
    "log_format",
    "log_level",
)
"""The registry's options that mean something without a server. Variables and file may hold the others as well."""

_HELP = f"""Download models into the cache, without a server: for image builds, where run time is then offline.

Models are named here, by the tables of a --file, or by SLIPWAY_PRELOAD=embedding,reranker with HF_EMBEDDING_MODEL_ID …
What is there already is not fetched again, and what was interrupted goes on. Each model is a line of standard output.

{exits.MEANING}"""


def command() -> click.Command:
    """The sub-command."""
    return options.command(RegistrySettings, _run, name="preload", help=_HELP, fields=_FIELDS, parameters=_parameters())


def _parameters() -> Sequence[click.Parameter]:
    return (
        click.Argument(["models"], nargs=-1, metavar="[MODEL[@REVISION]]..."),
        click.Option(
            ["--file", "file"],
            type=click.Path(path_type=Path),
            metavar="PATH",
            help='A TOML file with a table for each model: [embedding], then model = "owner/name" and, as needed, '
            "revision, variant, files, exclude, all.",
        ),
        click.Option(["--variant"], default="", metavar="TEXT", help="Of the models named here: one variant, Q4_K_M."),
        click.Option(["--include"], multiple=True, metavar="GLOB", help="Of the models named here: files to take."),
        click.Option(["--exclude"], multiple=True, metavar="GLOB", help="Of the models named here: files to skip."),
        click.Option(["--all", "everything"], is_flag=True, help="Of the models named here: every file."),
        click.Option(
            ["--keep"],
            is_flag=True,
            help="Pin what is loaded, without an end: a registry with this --state-dir neither prunes nor deletes it.",
        ),
        click.Option(
            ["--patience"],
            default=PATIENCE,
            metavar="DURATION",
            show_default=True,
            help="How long to wait for a Hub that is away.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print a JSON document for each model."),
    )


def _run(
    settings: RegistrySettings,
    *,
    models: Sequence[str] = (),
    file: Path | None = None,
    variant: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    everything: bool = False,
    keep: bool = False,
    patience: str = PATIENCE,
    as_json: bool = False,
) -> None:
    choice = Choice(variant=variant, files=tuple(include), exclude=tuple(exclude), everything=everything)
    try:
        seconds = parse_duration(patience)
    except ValueError as error:
        raise UsageError(f"--patience: {error}") from None
    wish = Wish(targets=targets(models, choice, file, os.environ), keep=keep, as_json=as_json, patience=seconds)
    level = settings.log_level if "log_level" in settings.model_fields_set else LogLevel.WARNING
    logs.configure(style=settings.log_format, level=level)
    sys.exit(_exit_code(partial(anyio.run, until_signalled, partial(preload, settings, wish, os.environ))))


def _exit_code(run: Callable[[], int]) -> int:
    try:
        return run()
    except Exception as raised:
        match unwrapped(raised):
            case TakenError() as error:
                say(f"{error}. A registry fills its cache itself: `slipway pull MODEL` asks it to")
                return exits.TAKEN
            case UnusableError() as error:
                say(str(error))
                return exits.DISK
            case StartError() as error:
                say(str(error))
                return exits.USAGE
            case _:
                raise
