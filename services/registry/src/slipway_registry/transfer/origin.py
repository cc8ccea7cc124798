"""Where a connection leads: what decides who may see a bearer, and all that messages say of a URL."""

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from slipway_service.fault import Fault, Reason

from slipway_registry.transfer.errors import Setback


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL; the rest of it may be a signature."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of a URL.

        Raises:
            Fault: HUB_ANSWER_UNSAFE, if it is not http(s) with a host.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Fault(Reason.HUB_ANSWER_UNSAFE, "the Hub sent a link that is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Fault(
                Reason.HUB_ANSWER_UNSAFE, f"the Hub sent a link of scheme {parts.scheme!r}; only http(s) is followed"
            )
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@contextlib.contextmanager
def wire_errors(url: str) -> Iterator[None]:
    """Turn what sockets and `http.client` raise into a Setback that names the origin only."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise setback_of(error, url) from error


def setback_of(error: Exception, url: str) -> Setback:
    """The Setback for what a socket or `http.client` raised."""
    if isinstance(error, TimeoutError):
        return Setback(f"{Origin.of(url)}: no byte within the stall timeout")
    return Setback(f"{Origin.of(url)}: {type(error).__name__}: {error}")
