"""Signed links: what redirects of the Hub point to, and what the CDN and the CAS check."""

import hashlib
import hmac
import time
from collections.abc import Callable

from tests.hub.messages import Reply, Request, xml_error


class Signer:
    """Signs paths with an expiry.

    ``ttl`` is in seconds and holds for links made from now on; the real Hub gives an hour. The clock is that
    of ``time.time``.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.ttl = 3600.0
        self.clock = clock
        self._generation = 0

    def expire_all(self) -> None:
        """Refuse every link handed out so far."""
        self._generation += 1

    def sign(self, path: str) -> str:
        """The path with ``Expires`` (unix seconds) and ``Signature``."""
        expires = int(self.clock() + self.ttl)
        return f"{path}?Expires={expires}&Signature={self._signature(path, expires)}&Key-Pair-Id=EMULATOR"

    def refusal(self, request: Request) -> Reply | None:
        """Why a link is not honoured, None if it is."""
        query = request.query
        expires, signature = query.get("Expires", [""])[0], query.get("Signature", [""])[0]
        if not expires or not signature:
            return xml_error(403, "MissingKey", "Missing Key-Pair-Id query parameter or cookie value")
        if expires.isdigit() and int(expires) < self.clock():
            return xml_error(403, "AccessDenied", "Request has expired")
        if not expires.isdigit() or signature != self._signature(request.path, int(expires)):
            return xml_error(403, "SignatureDoesNotMatch", "The signature does not match")
        return None

    def _signature(self, path: str, expires: int) -> str:
        text = f"{self._generation}:{expires}:{path}"
        return hmac.new(b"slipway-hub-emulator", text.encode(), hashlib.sha256).hexdigest()
