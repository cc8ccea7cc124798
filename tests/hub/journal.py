"""Every request that the three origins saw, for assertions from this process and others."""

import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.hub.messages import OriginName, Request


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what came of it; ``sent`` (body bytes) and ``status`` stand once ``finished``.

    What a client has received has been counted in ``sent``.
    """

    t: float
    origin: OriginName
    method: str
    target: str
    headers: Mapping[str, str]
    status: int = 0
    sent: int = 0
    finished: bool = False
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, origin: OriginName, request: Request) -> Self:
        """The exchange that a request begins now."""
        return cls(
            t=time.time(),
            origin=origin,
            method=request.method,
            target=request.target,
            headers=dict(request.headers),
        )

    @property
    def path(self) -> str:
        """The raw path without the query."""
        return self.target.partition("?")[0]

    @property
    def byte_range(self) -> tuple[int, int | None] | None:
        """First and last byte (inclusive) of the Range header, where it has the form ``bytes=a-[b]``."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None

    def to_json(self) -> dict[str, Any]:
        """The exchange as `GET /__journal` shows it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": self.path}


class Journal:
    """All exchanges in order of arrival; safe to read from any thread."""

    def __init__(self, secrets: Callable[[], Collection[str]]) -> None:
        self._exchanges: list[Exchange] = []
        self._changed = threading.Condition()
        self._secrets = secrets

    def begin(self, origin: OriginName, request: Request) -> Exchange:
        """Record a request that has just been read."""
        exchange = Exchange.of(origin, request)
        with self._changed:
            self._exchanges.append(exchange)
            self._changed.notify_all()
        return exchange

    def finish(self, exchange: Exchange) -> None:
        """Mark an exchange as over and wake those who wait for it."""
        with self._changed:
            exchange.finished = True
            self._changed.notify_all()

    def requests(
        self, path: str = "", *, origin: OriginName | None = None, method: str | None = None
    ) -> list[Exchange]:
        """Exchanges whose raw target contains the regular expression ``path``, in order of arrival."""
        pattern = re.compile(path)
        with self._changed:
            return [
                exchange
                for exchange in self._exchanges
                if (origin is None or exchange.origin == origin)
                and (method is None or exchange.method == method)
                and pattern.search(exchange.target)
            ]

    def wait_for(
        self,
        path: str = "",
        *,
        origin: OriginName | None = None,
        count: int = 1,
        finished: bool = False,
        timeout: float = 60.0,
    ) -> list[Exchange]:
        """The matching exchanges once there are ``count`` of them (``finished`` ones, if asked).

        Raises:
            TimeoutError: there were fewer for ``timeout`` seconds.
        """

        def matching() -> list[Exchange]:
            found = self.requests(path, origin=origin)
            return [exchange for exchange in found if exchange.finished] if finished else found

        with self._changed:
            if not self._changed.wait_for(lambda: len(matching()) >= count, timeout):
                raise TimeoutError(f"{len(matching())} of {count} requests for {path!r} in {timeout} s")
            return matching()

    def over(self, path: str = "", *, origin: OriginName | None = None, timeout: float = 60.0) -> list[Exchange]:
        """The matching exchanges once every one of them has finished, so that what was sent is known to the byte.

        Raises:
            TimeoutError: one of them had not for ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: all(exchange.finished for exchange in self.requests(path, origin=origin)), timeout
            ):
                raise TimeoutError(f"not all requests for {path!r} had ended in {timeout} s")
            return self.requests(path, origin=origin)

    def leaks(self) -> list[Exchange]:
        """Requests that took a credential to where it must not go.

        The CDN and the CAS's data links are to see no Authorization at all, the CAS's API none of the Hub's.
        """
        secrets = self._secrets()

        def leaked(exchange: Exchange) -> bool:
            authorization = exchange.headers.get("authorization")
            if authorization is None or exchange.origin == "hub":
                return False
            data = exchange.origin == "cdn" or exchange.path.startswith("/xorbs/")
            return data or any(secret in authorization for secret in secrets)

        return [exchange for exchange in self.requests() if leaked(exchange)]

    def clear(self) -> None:
        """Forget everything so far."""
        with self._changed:
            self._exchanges.clear()
