"""The commands of `slipway cache`, in the order in which its help lists them."""

from collections.abc import Callable, Mapping

import typer

from slipway_client.cli.cache import copying, hold, look, prune, remove, usage, verify

cache = typer.Typer(name="cache", help="See, check, hold, copy and remove what is in the cache.", no_args_is_help=True)

_COMMANDS: Mapping[str, Callable[..., None]] = {
    "ls": look.ls,
    "usage": usage.usage,
    "verify": verify.verify,
    "pins": look.pins,
    "pin": hold.pin,
    "unpin": hold.unpin,
    "rm": remove.rm,
    "prune": prune.prune,
    "export": copying.export,
    "import": copying.import_,
}

for name, command in _COMMANDS.items():
    cache.command(name)(command)
