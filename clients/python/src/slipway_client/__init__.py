"""A typed client for Slipway's registry and runner.

`Registry` and `Runner` are asynchronous (anyio on asyncio); `slipway_client.sync` has the same for code without an
event loop. Methods take plain values, return the messages of the contract, and raise `SlipwayError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slipway_client.backoff import Backoff
    from slipway_client.downloads import select
    from slipway_client.errors import SlipwayError
    from slipway_client.events import Changed, Event, Mirror, Progressed, Removed, Reset, Synced
    from slipway_client.registry import Registry
    from slipway_client.runner import Runner
    from slipway_client.specs import model_spec
    from slipway_client.watch import Watch

__all__ = [
    "Backoff",
    "Changed",
    "Event",
    "Mirror",
    "Progressed",
    "Registry",
    "Removed",
    "Reset",
    "Runner",
    "SlipwayError",
    "Synced",
    "Watch",
    "model_spec",
    "select",
]

_MODULE_OF = {
    "Backoff": "backoff",
    "Registry": "registry",
    "Runner": "runner",
    "SlipwayError": "errors",
    "Watch": "watch",
    "model_spec": "specs",
    "select": "downloads",
} | dict.fromkeys(("Changed", "Event", "Mirror", "Progressed", "Removed", "Reset", "Synced"), "events")


def __getattr__(name: str) -> object:
    # Imported when used: grpc reads its log level when it is imported, and the command has to set that before.
    if name in _MODULE_OF:
        return getattr(import_module(f"slipway_client.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
