"""The gateway as a client: one connection to the backend for each request."""

import io
from typing import Final

import aiohttp
from slipway_service.fault import Reason
from yarl import URL

from slipway_runner.gateway.refusal import Refusal
from slipway_runner.gateway.routes import RETRY_AFTER, Route

CONNECT_SECONDS: Final = 5.0
"""To a backend on this host, which accepts in microseconds unless it hangs."""

_WHOLE_BYTES: Final = 1 << 20
"""Of a body that is sent in one go; a larger one is sent in pieces, so that other streams go on meanwhile."""

_UNAUTHORIZED: Final = 401


def session() -> aiohttp.ClientSession:
    """The client.

    No limit on how long an answer takes: that is the client's to decide, and a backend that hangs is the supervisor's
    to kill. No limit on connections. None is kept: a backend that closes an idle one just as a request is sent on it
    (uvicorn and llama-server do after 5 s) would fail that request, and connecting on this host costs microseconds. No
    cookies, no proxy; what the backend has compressed stays so.
    """
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent",),
    )


async def ask(
    client: aiohttp.ClientSession, route: Route, path: str, body: bytes, accept: str
) -> aiohttp.ClientResponse | Refusal:
    """Send a request to a model's backend; returns when its answer has begun.

    Of the client's headers only `Accept` comes along: its key is for the gateway, not for the backend.
    """
    headers = {"Content-Type": "application/json", "Accept": accept, "Accept-Encoding": "identity"}
    if route.api_key:
        headers["Authorization"] = f"Bearer {route.api_key}"
    url = URL.build(scheme="http", host=route.host, port=route.port, path=route.paths[path])
    data = body if len(body) <= _WHOLE_BYTES else io.BytesIO(body)
    try:
        answer = await client.post(url, data=data, headers=headers, allow_redirects=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return _failed(route, Reason.BACKEND_UNRESPONSIVE, "does not accept connections; it is being looked after")
    except aiohttp.ClientError as error:
        return _failed(route, Reason.BACKEND_EXITED, f"broke off before it had answered ({type(error).__name__})")
    if answer.status == _UNAUTHORIZED:
        answer.close()
        return _failed(route, Reason.BACKEND_UNRESPONSIVE, "does not take the key that the runner started it with")
    return answer


def _failed(route: Route, reason: Reason, what: str) -> Refusal:
    return Refusal(status=502, code=reason, text=f"{route.id} {what}.", retry_after=RETRY_AFTER)
