"""Fills a partial through Xet storage: ordered streams of hf-xet from wherever the frontier is.

hf-xet fetches chunks in parallel and puts them together; what it does not do is resume, verify, or stop by itself. So a
stream begins at each gap of the frontier, the hash is checked like any other, and a halt aborts the stream's group.
Observed in hf-xet 1.8 and allowed for here: when the reconstruction cannot be had, the stream ends without an error and
without bytes; errors have no types of their own beyond OSError, ConnectionError and RuntimeError.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urljoin

import hf_xet as untyped
from slipway_service.fault import Fault, Reason

from slipway_registry.hub.credentials import Credential
from slipway_registry.transfer.errors import Away, DiskFull, Setback, Vanished
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.links import MAX_REDIRECTS, REDIRECTS, HubFile, HubLimits
from slipway_registry.transfer.origin import Origin
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters
from slipway_registry.transfer.persist import Patience, persist
from slipway_registry.transfer.slots import Slots
from slipway_registry.transfer.wire import Wire

# hf-xet hands over up to a xorb (64 MiB) at once; it is written in these pieces, with a look at the halt in between.
_WRITE_BYTES = 4 << 20
_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
_TOKEN_BYTES = 64 << 10

hf_xet: Any = untyped  # a native module without types; what is used of it is below


class _Group(Protocol):
    def download_stream(self, info: object, start: int, end: int) -> Iterator[bytes]: ...

    def abort(self) -> None: ...


class _Session(Protocol):
    def new_download_stream_group(self, **options: object) -> _Group: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class XetSettings:
    """Bounds of the process's one Xet session, over all files."""

    # hf-xet's own default is 1.5 GB and more. A xorb takes 64 MiB of it while it arrives: this is five at once.
    buffer_bytes: int = 335_000_000
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    # Streams at once, over all files: each may hold a xorb beside the buffer, and fetches in parallel by itself.
    streams: int = 2
    tries: int = 3  # of one request within hf-xet, before the stream fails and ours begin

    def config(self) -> object:
        """The same in hf-xet's words."""
        return hf_xet.XetConfig().with_config(
            {
                "client.connect_timeout": f"{int(self.connect_timeout * 1000)}ms",
                "client.read_timeout": f"{int(self.stall_timeout * 1000)}ms",
                "client.retry_max_attempts": self.tries,
                "client.retry_base_delay": "500ms",
                "reconstruction.download_buffer_size": self.buffer_bytes,
                "reconstruction.download_buffer_limit": self.buffer_bytes,
                "reconstruction.download_buffer_perfile_size": 0,
                "reconstruction.min_prefetch_buffer": self.buffer_bytes,
                "telemetry.enabled": False,
            }
        )


@dataclass(slots=True)
class XetSessions:
    """The process's session, made when it is first needed: it starts threads of its own."""

    settings: XetSettings = field(default_factory=XetSettings)
    slots: Slots = field(init=False)
    _session: _Session | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.slots = Slots(self.settings.streams)

    def get(self) -> _Session:
        """The session."""
        with self._lock:
            if self._session is None:
                self._session = hf_xet.XetSession(config=self.settings.config())
            return self._session


@dataclass(frozen=True, slots=True)
class XetAccess:
    """Where the chunks of a repository are, and a token for them."""

    url: str
    token: str
    expires: int  # unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class XetFetch:
    """Fetches one file of the Hub that is in Xet storage."""

    sessions: XetSessions
    wire: Wire
    file: HubFile
    xet_hash: str
    credential: Callable[[], Credential]
    limits: HubLimits
    patience: Patience

    def __call__(self, partial: Partial, halt: Halt, counters: Counters) -> None:
        """Return when every byte is there; raises what `transfer.errors` lists."""
        counters.connections = 1
        try:
            persist(
                lambda: self._stream_gaps(partial, halt, counters),
                lambda: partial.frontier.done,
                self.patience,
                halt,
            )
        finally:
            counters.connections = 0

    def _stream_gaps(self, partial: Partial, halt: Halt, counters: Counters) -> None:
        gaps = partial.frontier.gaps()
        if not gaps:
            return
        with self.sessions.slots.holding("stream", halt):
            access = self._access(halt)
            with xet_errors(access.url, halt):
                group = self._group(access)
            with halt.waking(group.abort):
                for start, end in gaps:
                    self._stream(group, start, end, partial, halt, counters, access.url)

    def _stream(
        self,
        group: _Group,
        start: int,
        end: int,
        partial: Partial,
        halt: Halt,
        counters: Counters,
        url: str,
    ) -> None:
        info = hf_xet.XetFileInfo(self.xet_hash, partial.size)
        with xet_errors(url, halt):
            for chunk in group.download_stream(info, start=start, end=end):
                counters.received += len(chunk)
                start = _write(partial, start, memoryview(chunk)[: end - start], halt)
                del chunk  # up to 64 MiB, not to be kept while the next one is waited for
        if start < end:
            raise Setback(f"{Origin.of(url)}: the stream ended {end - start} bytes early")

    def _group(self, access: XetAccess) -> _Group:
        token = self.credential().token
        return self.sessions.get().new_download_stream_group(
            endpoint=access.url,
            token=access.token,
            token_expiry_unix_secs=access.expires,
            token_refresh_url=self.file.xet_token_url,
            token_refresh_headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def _access(self, halt: Halt) -> XetAccess:
        """Ask the Hub; raises as a request for the file itself would."""
        hub = Origin.of(self.file.endpoint)
        try:
            found = json.loads(self._token(halt))
            access = XetAccess(str(found["casUrl"]), str(found["accessToken"]), int(found["exp"]))
        except (ValueError, KeyError, TypeError):
            raise Setback(f"{hub} did not say where the chunks of {self.file.repo} are") from None
        Origin.of(access.url)  # http(s) only
        return access

    def _token(self, halt: Halt) -> bytes:
        """What the Hub answers; a renamed repository's route leads to its new one, and nothing leads elsewhere."""
        url, hub = self.file.xet_token_url, Origin.of(self.file.endpoint)
        for _ in range(MAX_REDIRECTS):
            with self.wire.get(url, self.limits.headers(self.credential()), halt) as response:
                if response.status not in REDIRECTS:
                    self.limits.check(response, self.file, self.credential())
                    return response.read(_TOKEN_BYTES)
                url = urljoin(url, response.header("Location"))
            if Origin.of(url) != hub:
                raise Setback(f"{hub} sends to {Origin.of(url)} for a token")
        raise Setback(f"{hub}: more than {MAX_REDIRECTS} redirects")


def _write(partial: Partial, position: int, view: memoryview, halt: Halt) -> int:
    """Write a chunk piece by piece; returns where it ends."""
    for offset in range(0, len(view), _WRITE_BYTES):
        halt.check()
        partial.check_present()
        partial.write(position + offset, view[offset : offset + _WRITE_BYTES])
    return position + len(view)


@contextlib.contextmanager
def xet_errors(url: str, halt: Halt) -> Iterator[None]:
    """Turn what hf-xet raises into ours."""
    try:
        yield
    except (Setback, Fault, Halted, DiskFull, Vanished):
        raise
    except (OSError, RuntimeError, ValueError) as error:
        halt.check()  # an aborted stream fails with whatever it was doing
        raise _setback_of(error, str(Origin.of(url))) from error


def _setback_of(error: Exception, origin: str) -> Setback:
    match = _STATUS.search(str(error))
    status = int(match[1]) if match else 0
    if status == 429:
        return Away(f"{origin} answered 429", reason=Reason.HUB_RATE_LIMITED)
    if status >= 500:
        return Away(f"{origin} answered {status}", reason=Reason.HUB_ERROR)
    if status:
        return Setback(f"{origin} answered {status}")
    if isinstance(error, ConnectionError):
        return Away(f"{origin} could not be reached", reason=Reason.HUB_UNREACHABLE)
    return Setback(f"{origin}: the stream broke ({type(error).__name__})")
