"""Page tokens: opaque, bound to the list they continue, and authenticated, so that no client can make one up."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64

from google.protobuf.message import Message

from slipway_service.fault import Fault, Reason

_MAC = 16
"""Bytes of the HMAC-SHA256 that are kept: 128 bits cannot be guessed."""


class PageTokens:
    """Makes and opens tokens.

    Args:
        key: shared by replicas that continue each other's lists. Without one, tokens end with the process.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    def seal(self, position: str, request: Message) -> str:
        """The token for the page at `position` of the list that `request` asks for."""
        return urlsafe_b64encode(self._mac(position.encode(), request) + position.encode()).decode().rstrip("=")

    def open(self, token: str, request: Message) -> str | None:
        """The position in a token; None for the first page.

        Raises:
            Fault: PAGE_TOKEN_INVALID, if the token is none of ours, or of a list with another filter.
        """
        if not token:
            return None
        try:
            sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (BadBase64, ValueError):
            sealed = b""
        mac, position = sealed[:_MAC], sealed[_MAC:]
        if not hmac.compare_digest(mac, self._mac(position, request)):
            raise Fault(
                Reason.PAGE_TOKEN_INVALID,
                "The page token is not from this server, or belongs to a list with another filter. "
                "Ask for the first page again, without a token.",
            )
        return position.decode()

    def _mac(self, position: bytes, request: Message) -> bytes:
        return hmac.new(self._key, _scope(request) + position, hashlib.sha256).digest()[:_MAC]


def _scope(request: Message) -> bytes:
    """What has to stay the same from page to page: the request's type and every field but those of paging."""
    scope = type(request)()
    scope.CopyFrom(request)
    for field in ("page_token", "page_size"):
        if field in scope.DESCRIPTOR.fields_by_name:
            scope.ClearField(field)
    name = scope.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + scope.SerializeToString(deterministic=True)).digest()
