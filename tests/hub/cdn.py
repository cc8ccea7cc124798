"""The CDN origin: LFS content behind signed links; it knows no users and must never see a token."""

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.hub.content import Blob
from tests.hub.links import Signer
from tests.hub.messages import Reply, Request, xml_error


@dataclass(slots=True, kw_only=True)
class Cdn:
    """Blobs by the name in their link."""

    signer: Signer
    blobs: dict[str, Blob] = field(default_factory=dict)

    def add(self, blob: Blob) -> None:
        """Make a blob available to those with a link."""
        self.blobs[blob.sha256] = blob

    def link(self, blob: Blob, file_name: str) -> str:
        """A signed path to a blob."""
        disposition = quote(f'inline; filename="{file_name}"', safe="")
        return f"{self.signer.sign(f'/cdn/{blob.sha256}')}&response-content-disposition={disposition}"

    def route(self, request: Request) -> Reply:
        """Answer a request on this origin."""
        match = re.fullmatch(r"/cdn/([0-9a-f]{64})", request.path)
        if match is None:
            return xml_error(404, "NoSuchKey", "The specified key does not exist.")
        if refusal := self.signer.refusal(request):
            return refusal
        blob = self.blobs.get(match[1])
        if blob is None:
            return xml_error(404, "NoSuchKey", "The specified key does not exist.")
        own_etag = hashlib.md5(blob.sha256.encode(), usedforsecurity=False).hexdigest()
        return Reply(
            headers={
                "Content-Type": "binary/octet-stream",
                "Accept-Ranges": "bytes",
                "ETag": f'"{own_etag}-2"',  # of the object store, unrelated to the Hub's
                "Cache-Control": "public, max-age=31536000, immutable",
            },
            body=(blob.slice(),) if blob.size else (),
            ranged=True,
        )
