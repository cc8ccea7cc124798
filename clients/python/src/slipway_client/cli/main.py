"""The command's root: global options, the commands, and how each ends."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import anyio
import typer

from slipway_client.cli import catalog, chat, downloads, exit_codes, models, status, watching
from slipway_client.cli.cache import remove
from slipway_client.cli.cache.commands import cache
from slipway_client.cli.output import Output
from slipway_client.cli.session import Interrupted, Run, Session
from slipway_client.cli.settings import SettingsInvalid, resolve
from slipway_client.errors import SlipwayError

GLOBAL_FLAGS = ("--json",)
GLOBAL_OPTIONS = ("--registry", "--runner", "--config")


app = typer.Typer(
    name="slipway",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=exit_codes.summary(),
    context_settings={"help_option_names": ["-h", "--help"]},
)

FIND = "Find"
FETCH = "Download"
KEEP = "Keep and remove"
RUN = "Run"
LOOK = "Look"

for panel, commands in {
    FIND: (catalog.search, catalog.info),
    FETCH: (
        downloads.pull,
        downloads.downloads,
        downloads.pause,
        downloads.resume,
        downloads.cancel,
    ),
    KEEP: (remove.uninstall,),
    RUN: (models.load, models.unload, models.activate, models.ps, models.logs, chat.chat),
    LOOK: (status.status, watching.watch),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(cache, rich_help_panel=KEEP)


def _version(wanted: bool) -> None:
    if wanted:
        Output().line(f"slipway {version('slipway-client')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    registry: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The registry. [SLIPWAY_REGISTRY]")] = None,
    runner: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The runner. [SLIPWAY_RUNNER]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines on standard output, errors as JSON.")] = False,
    config: Annotated[Path | None, typer.Option(help="Instead of ~/.config/slipway/config.toml.")] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """From the name of a model to an endpoint that answers."""
    settings = resolve({"registry": registry, "runner": runner}, os.environ, config)
    context.obj = Session(settings, Output(as_json=as_json), run=context.obj)


def main(arguments: Sequence[str] | None = None, *, run: Run = anyio.run) -> int:
    """Runs the command; returns its exit code.

    Args:
        arguments: instead of those of the process.
        run: runs asynchronous work to its end.
    """
    options, rest = hoisted(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in options)
    try:
        return app(args=[*options, *rest], prog_name="slipway", standalone_mode=False, obj=run) or exit_codes.WORKED
    except SlipwayError as error:
        code = exit_codes.exit_code(error)
        output.error(error, code)
        return code
    except SettingsInvalid as error:
        output.failure("CONFIGURATION", str(error), exitCode=exit_codes.USAGE)
        return exit_codes.USAGE
    except typer.TyperException as error:
        if message := error.format_message():
            output.failure("USAGE", message, exitCode=error.exit_code)
        return error.exit_code
    except (KeyboardInterrupt, Interrupted, typer.Abort) as interrupt:
        output.failure("INTERRUPTED", str(interrupt) or "stopped by Ctrl-C", exitCode=exit_codes.INTERRUPTED)
        return exit_codes.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Typer and rich make SystemExit of a closed pipe, and of nothing else here. Python writes what it still holds
        # when it ends; let that go nowhere instead of failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.PIPE_CLOSED
    except Exception as error:
        output.failure("DEFECT", f"{type(error).__name__}: {error}", exitCode=exit_codes.FAILED)
        if not output.as_json:
            traceback.print_exc()
        return exit_codes.FAILED


def hoisted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options, wherever they stand, and everything else: `slipway ps --json` is `slipway --json ps`."""
    options: list[str] = []
    rest: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            return options, [*rest, argument, *remaining]
        if argument in GLOBAL_FLAGS or argument.startswith(tuple(f"{option}=" for option in GLOBAL_OPTIONS)):
            options.append(argument)
        elif argument in GLOBAL_OPTIONS:
            options += [argument, *remaining[:1]]
            del remaining[:1]
        else:
            rest.append(argument)
    return options, rest
