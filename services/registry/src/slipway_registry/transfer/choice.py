"""Which way a file is fetched, and what to try when that way is blocked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from slipway_registry.hub.credentials import Credential
from slipway_registry.transfer.engine import Fetch
from slipway_registry.transfer.errors import Away, Setback
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.http import CONNECTIONS_PER_FILE, HttpFetch
from slipway_registry.transfer.links import HubFile, HubLimits
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters
from slipway_registry.transfer.persist import Patience
from slipway_registry.transfer.wire import Wire
from slipway_registry.transfer.xet import XetFetch, XetSessions

# The Hub does not serve larger files over plain http (huggingface_hub `constants.py`, MAX_HTTP_DOWNLOAD_SIZE).
HTTP_LIMIT = 50 * 1000**3


class Transport(StrEnum):
    """How files that are in Xet storage are fetched; all others come over http.

    AUTO is http as far as the Hub serves it (a kill costs less, and it needs a fifth of the memory), else Xet; each is
    the other's way out when it brings nothing.
    """

    AUTO = "AUTO"
    HTTP = "HTTP"
    XET = "XET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetches:
    """Makes fetches."""

    wire: Wire
    limits: HubLimits
    patience: Patience
    sessions: XetSessions
    transport: Transport = Transport.AUTO
    connections: int = CONNECTIONS_PER_FILE

    def fetch(
        self, file: HubFile, size: int, xet_hash: str, credential: Callable[[], Credential], *, mismatches: int = 0
    ) -> Fetch:
        """A fetch for one file; after a wrong hash by the other way, if there is one."""
        http = HttpFetch(
            wire=self.wire,
            file=file,
            credential=credential,
            limits=self.limits,
            patience=self.patience,
            connections=self.connections,
        )
        if not xet_hash or self.transport is Transport.HTTP:
            return http
        xet = XetFetch(
            sessions=self.sessions,
            wire=self.wire,
            file=file,
            xet_hash=xet_hash,
            credential=credential,
            limits=self.limits,
            patience=self.patience,
        )
        if self.transport is Transport.XET or size > HTTP_LIMIT:
            return xet
        return FirstThatBrings([xet, http] if mismatches % 2 else [http, xet])


@dataclass(frozen=True, slots=True)
class FirstThatBrings:
    """Ways to the same bytes: where one is set back and has brought nothing, the next is tried."""

    ways: Sequence[Fetch] = field(default_factory=tuple)

    def __call__(self, partial: Partial, halt: Halt, counters: Counters) -> None:
        """Return when every byte is there; raises what the last way raises."""
        for way in self.ways[:-1]:
            before = partial.frontier.done
            try:
                way(partial, halt, counters)
            except Away:
                raise  # nobody is there: that is not the way's fault
            except Setback:
                if partial.frontier.done > before:
                    raise
            else:
                return
        self.ways[-1](partial, halt, counters)
