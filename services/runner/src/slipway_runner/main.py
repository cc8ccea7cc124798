"""The `slipway-runner` command."""

from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from slipway_service import lifecycle, options
from slipway_service.lifecycle import Host

from slipway_runner.app import runner
from slipway_runner.config import RunnerSettings

STOP_LIMIT = 120.0
"""Seconds that stopping all models may take: the fleet's own bound is 90, and then nothing is left to wait for."""

PROGRAM = RunnerSettings.program


def serve(settings: RunnerSettings) -> None:
    """Run the runner until SIGTERM or SIGINT."""

    def opened(host: Host) -> AbstractAsyncContextManager[None]:
        return runner(host, settings)

    lifecycle.run(settings, opened, stop_limit=STOP_LIMIT)


def main() -> NoReturn:
    """What the command line calls."""
    program = options.group(RunnerSettings, help="Launches inference backends on this host and owns their lifecycle.")
    program.add_command(options.command(RunnerSettings, serve, name="serve", help="Serve until SIGTERM or SIGINT."))
    options.main(program, name=PROGRAM)
