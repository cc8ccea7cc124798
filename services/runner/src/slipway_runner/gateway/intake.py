"""Taking a request in: its body, whole and bounded."""

import anyio.to_thread
from aiohttp import web
from slipway_service.fault import Reason

from slipway_runner.gateway.body import Body, Malformed, parse
from slipway_runner.gateway.refusal import Refusal

MOST_BODY_BYTES = 32 * 1024 * 1024
"""Largest request: a long context with a few images in it."""

_INLINE_BYTES = 64 * 1024
"""Of a body that is searched for its model on the event loop, where that takes a millisecond and other streams wait;
larger ones are searched on a thread."""

_TOO_LARGE = Refusal(
    status=413, code=Reason.INVALID_FIELDS, text=f"The request is larger than {MOST_BODY_BYTES:,} bytes."
)
_ENCODED = Refusal(status=415, code=Reason.INVALID_FIELDS, text="Send the request without Content-Encoding.")


async def read(request: web.Request) -> Body | Refusal:
    """The body, with the model that it names."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        return _ENCODED
    if (request.content_length or 0) > MOST_BODY_BYTES:
        return _TOO_LARGE
    size, chunks = 0, []
    try:
        while chunk := await request.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BODY_BYTES:
                return _TOO_LARGE
        raw = b"".join(chunks)
        return parse(raw) if size <= _INLINE_BYTES else await anyio.to_thread.run_sync(parse, raw)
    except web.RequestPayloadError:
        return Refusal(status=400, code=Reason.INVALID_FIELDS, text="The request's body is no HTTP.")
    except Malformed as error:
        return Refusal(status=400, code=Reason.INVALID_FIELDS, text=str(error))
