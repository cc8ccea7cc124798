"""The `slipway-registry` command."""

from contextlib import AbstractAsyncContextManager
from typing import NoReturn

import click
from slipway_service import lifecycle, options
from slipway_service.lifecycle import Host

from slipway_registry.app import registry
from slipway_registry.config import RegistrySettings

PROGRAM = RegistrySettings.program


def serve(settings: RegistrySettings) -> None:
    """Run the registry until SIGTERM or SIGINT."""

    def opened(host: Host) -> AbstractAsyncContextManager[None]:
        return registry(host, settings)

    lifecycle.run(settings, opened)


def main() -> NoReturn:
    """What the command line calls."""
    program = click.Group(help="Finds models on the Hub and keeps them, verified, in a shared cache.")
    program.add_command(options.command(RegistrySettings, serve, name="serve", help="Serve until SIGTERM or SIGINT."))
    options.main(program, name=PROGRAM)
