"""The `slipway-registry` command."""

import os
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from slipway_service import lifecycle, options
from slipway_service.lifecycle import Host

from slipway_registry.app import registry
from slipway_registry.config import RegistrySettings
from slipway_registry.hub.trust import adopt_ca_bundle
from slipway_registry.preload import command as preload

PROGRAM = RegistrySettings.program


def serve(settings: RegistrySettings) -> None:
    """Run the registry until SIGTERM or SIGINT."""

    def opened(host: Host) -> AbstractAsyncContextManager[None]:
        return registry(host, settings)

    lifecycle.run(settings, opened)


def main() -> NoReturn:
    """What the command line calls."""
    adopt_ca_bundle(os.environ)
    about = "Finds models on the Hub and keeps them, verified, in a shared cache."
    program = options.group(RegistrySettings, help=about)
    program.add_command(options.command(RegistrySettings, serve, name="serve", help="Serve until SIGTERM or SIGINT."))
    program.add_command(preload.command())
    options.main(program, name=PROGRAM)
