"""Fills a partial over http."""

from collections.abc import Callable
from dataclasses import dataclass

from slipway_registry.hub.credentials import Credential
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.links import FileSource, HubFile, HubLimits
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters, PartFetch
from slipway_registry.transfer.persist import Patience
from slipway_registry.transfer.wire import Wire

# What one file takes at most: a CDN connection brings 20 to 100 MB/s, so eight fill 1.6 Gbit/s and more.
CONNECTIONS_PER_FILE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFetch:
    """Fetches one file of the Hub; see PartFetch for the parameters."""

    wire: Wire
    file: HubFile
    credential: Callable[[], Credential]
    limits: HubLimits
    patience: Patience
    connections: int = CONNECTIONS_PER_FILE

    def __call__(self, partial: Partial, halt: Halt, counters: Counters) -> None:
        """Return when every byte is there; raises what PartFetch.run raises."""
        source = FileSource(self.wire, self.file, self.credential, self.limits)
        PartFetch(
            partial,
            source,
            halt,
            counters,
            effort=self.wire.effort,
            connections=self.connections,
            patience=self.patience,
        ).run()
