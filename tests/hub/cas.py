"""The CAS origin: reconstructions for those with a token of the Hub's, xorb data behind signed links."""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.hub.links import Signer
from tests.hub.messages import RangeError, Reply, Request, json_reply, xml_error
from tests.hub.xet import XetStore

# A range of a reconstruction may reach past the end of the file; only its start must be inside.
_NO_END = 1 << 62


@dataclass(slots=True, kw_only=True)
class Cas:
    """``url`` tells this origin's own address. Tokens are good for ``token_ttl`` seconds."""

    store: XetStore
    signer: Signer
    url: Callable[[], str]
    token_ttl: float = 3600.0
    _generation: int = field(default=0)

    def issue_token(self) -> tuple[str, int]:
        """An access token and when it expires, in unix seconds."""
        expires = int(self.signer.clock() + self.token_ttl)
        return f"xet_{expires}_{self._signature(expires)}", expires

    def revoke_tokens(self) -> None:
        """Refuse every token issued so far."""
        self._generation += 1

    def route(self, request: Request) -> Reply:
        """Answer a request on this origin."""
        if match := re.fullmatch(r"/v1/reconstructions/([0-9a-f]{64})", request.path):
            return self._reconstruction(match[1], request)
        if match := re.fullmatch(r"/xorbs/([0-9a-f]{64})", request.path):
            return self._xorb(match[1], request)
        return json_reply({"error": "not found"}, status=404)

    def _reconstruction(self, file_hash: str, request: Request) -> Reply:
        if not self._valid(request.bearer):
            return json_reply({"error": "unauthorized"}, status=401)
        try:
            found = self.store.reconstruction(file_hash, _span(request.headers.get("range")))
        except RangeError as error:
            return json_reply({"error": str(error)}, status=416)
        if found is None:
            return json_reply({"error": "not found"}, status=404)
        for fetches in found["fetch_info"].values():
            for fetch in fetches:
                fetch["url"] = self.url() + self.signer.sign(fetch["url"])
        return json_reply(found)

    def _xorb(self, xorb_hash: str, request: Request) -> Reply:
        if refusal := self.signer.refusal(request):
            return refusal
        xorb = self.store.xorbs.get(xorb_hash)
        if xorb is None:
            return xml_error(404, "NoSuchKey", "The specified key does not exist.")
        return Reply(
            headers={"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"},
            body=xorb.body(),
            ranged=True,
        )

    def _valid(self, token: str | None) -> bool:
        match = re.fullmatch(r"xet_(\d+)_([0-9a-f]+)", token or "")
        if match is None or int(match[1]) < self.signer.clock():
            return False
        return hmac.compare_digest(match[2], self._signature(int(match[1])))

    def _signature(self, expires: int) -> str:
        text = f"{self._generation}:{expires}"
        return hmac.new(b"slipway-cas-emulator", text.encode(), hashlib.sha256).hexdigest()[:32]


def _span(header: str | None) -> tuple[int, int] | None:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "")
    if match is None:
        return None
    return int(match[1]), int(match[2]) + 1 if match[2] else _NO_END
