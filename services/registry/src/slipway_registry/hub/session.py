"""One call to the Hub, in a worker thread: huggingface_hub's API with our timeouts, our bounds and our errors.

huggingface_hub sends every request through one client of the process, made by a factory that may be set. Ours watches
over the requests that belong to a call: where they go, how long they take, how much comes back, what the answer says
about the quota. It knows which call a request belongs to by a context variable, which worker threads inherit.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
from huggingface_hub import HfApi, get_session, set_client_factory
from slipway_service.weights.names import Commit, FilePath, RepoId

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import HubFailure, Refusal, Unclear, Unreachable
from slipway_registry.hub.rate import API, RESOLVERS, RateBudget, retry_after
from slipway_registry.hub.settings import HubSettings

LIBRARY, VERSION = "slipway-registry", version("slipway-registry")
"""How the registry calls itself in its user agent."""

MAX_ANSWER_BYTES = 64 << 20
"""Largest body of an API answer: a thousand files' listing is under 1 MiB, a model with 20,000 siblings under 8 MiB."""

MAX_ERROR_BYTES = 64 << 10
"""So much of an error's body is read, to keep the connection; it is not looked at."""

MAX_CURSOR_LENGTH = 2048
"""Longest cursor that is kept for a client; the Hub's have some 100 characters."""

_CALL: ContextVar["HubSession | None"] = ContextVar("_CALL", default=None)


class _Client(httpx2.Client):
    """The process's client: hands requests of a call to that call, and lets all others pass."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        call = _CALL.get()
        if call is None:
            return super().send(request, stream=stream, **options)
        return call.supervise(super().send, request, stream=stream, **options)


def install_client() -> None:
    """Make huggingface_hub use our client, for the life of the process.

    Requests outside of calls are sent as with its own client: same hooks, no timeout. Proxies and certificates come
    from the environment for both.
    """
    for name in ("httpx2", "httpcore2"):
        # They tell whole addresses at INFO, and those of files are signed: who has one has the file.
        logging.getLogger(name).setLevel(logging.WARNING)
    before = get_session()
    if isinstance(before, _Client):
        return
    hooks = before.event_hooks
    # Calls have different credentials: a cookie set for one must not go out with another.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))

    def make() -> httpx2.Client:
        return _Client(event_hooks=hooks, follow_redirects=True, timeout=None, cookies=no_cookies)

    set_client_factory(make)


class HubSession:
    """What a call may do. Made for each call, used in one thread.

    Attributes:
        api: huggingface_hub's API, set up for this endpoint and credential.
    """

    def __init__(
        self,
        settings: HubSettings,
        credential: Credential,
        budget: RateBudget,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._budget = budget
        self._clock = clock
        self._ends = clock() + settings.call_timeout
        self.api = HfApi(
            endpoint=settings.endpoint, token=credential.token or False, library_name=LIBRARY, library_version=VERSION
        )
        self._headers = {"user-agent": f"{LIBRARY}/{VERSION}"}
        if credential.token:
            self._headers["authorization"] = f"Bearer {credential.token}"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Requests made inside belong to this call."""
        reset = _CALL.set(self)
        try:
            yield
        finally:
            _CALL.reset(reset)

    def page(self, path: str, params: Mapping[str, Any]) -> tuple[Any, str]:
        """GET of a list: a page's JSON, and the cursor to the next page, empty after the last.

        Of the link to the next page only the cursor is used: where requests go is ours to say.
        """
        response = get_session().get(f"{self._settings.endpoint}{path}", params=params, headers=self._headers)
        return _json(response), _next_cursor(response)

    def read(self, repo: RepoId, commit: Commit, path: FilePath, offset: int, length: int) -> bytes:
        """Bytes of a file, fewer than `length` at its end.

        The token stays with the Hub: what a redirect leads to on another origin is asked for without it.
        """
        url = f"{self._settings.endpoint}/{repo}/resolve/{commit}/{quote(path)}"
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        try:
            with get_session().stream("GET", url, headers={**self._headers, **wanted}) as response:
                if not _begins_at(response, offset):
                    raise Unclear(f"{path} cannot be read in parts")
                return self._body(response, length, cut=True)
        except Refusal as refusal:
            if refusal.status == 416:
                return b""
            raise

    def supervise(
        self, send: Callable[..., httpx2.Response], request: httpx2.Request, *, stream: bool, **options: Any
    ) -> httpx2.Response:
        """Send a request of this call. Every failure leaves as a `HubFailure`, so that nobody else repeats it."""
        bucket = self._bucket_of(request.url)
        if (wait := self._budget.take(self._credential.key, bucket)) > 0:
            raise Refusal(429, retry_after=wait)
        request.extensions["timeout"] = self._timeouts()
        try:
            response = send(request, stream=True, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise Unreachable(_cause(error)) from error
        return self._accepted(response, bucket, stream=stream)

    def _accepted(self, response: httpx2.Response, bucket: str, *, stream: bool) -> httpx2.Response:
        asked = self._budget.learn(self._credential.key, bucket, response.status_code, response.headers)
        if response.status_code >= 400:
            refusal = _refusal(response, asked)
            self._discard(response)
            raise refusal
        if stream:
            return response
        headers = [item for item in response.headers.multi_items() if item[0].lower() not in _OF_THE_TRANSFER]
        try:
            body = self._body(response, MAX_ANSWER_BYTES)
        finally:
            response.close()
        return httpx2.Response(response.status_code, headers=headers, content=body, request=response.request)

    def _body(self, response: httpx2.Response, at_most: int, *, cut: bool = False) -> bytes:
        """The body, decoded; what is longer than `at_most` is cut there, or refused."""
        body = bytearray()
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) >= at_most and cut:
                    return bytes(body[:at_most])
                if len(body) > at_most:
                    raise Unclear(f"an answer of more than {at_most:,} bytes")
                if self._clock() > self._ends:
                    raise Unreachable(f"no whole answer in {self._settings.call_timeout:g} s")
        except (httpx2.HTTPError, OSError) as error:
            raise Unreachable(_cause(error)) from error
        return bytes(body)

    def _discard(self, response: httpx2.Response) -> None:
        try:
            self._body(response, MAX_ERROR_BYTES, cut=True)
        except HubFailure:
            pass  # the status has said what matters
        finally:
            response.close()

    def _timeouts(self) -> dict[str, float]:
        left = self._ends - self._clock()
        if left <= 0:
            raise Unreachable(f"no whole answer in {self._settings.call_timeout:g} s")
        connect, read = (min(left, most) for most in (self._settings.connect_timeout, self._settings.read_timeout))
        return {"connect": connect, "read": read, "write": read, "pool": left}

    def _bucket_of(self, url: httpx2.URL) -> str:
        """Which quota a request counts against. What else huggingface_hub asks for (who runs it) is refused."""
        text = str(url)
        if text.startswith(f"{self._settings.endpoint}/api/models"):
            return API
        if text.startswith(f"{self._settings.endpoint}/") and "/resolve/" in url.path:
            return RESOLVERS
        raise Unclear("a request that is not for the Hub's models")


def _begins_at(response: httpx2.Response, offset: int) -> bool:
    """Whether the body begins where it was asked to; a whole file begins at 0."""
    if response.status_code != 206:
        return offset == 0
    return response.headers.get("content-range", "").startswith(f"bytes {offset}-")


_OF_THE_TRANSFER = frozenset({"content-encoding", "transfer-encoding", "content-length"})


def _refusal(response: httpx2.Response, asked: float | None) -> Refusal:
    return Refusal(
        response.status_code,
        response.headers.get("x-error-code", "")[:64],
        response.headers.get("x-error-message", "")[:256],
        asked if asked is not None else retry_after(response.headers),
    )


def _cause(error: Exception) -> str:
    """Why there was no answer, without addresses (links are secrets): the library's word for it, and the system's."""
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) and "://" not in str(error) else kind


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise Unclear("an answer that is not JSON") from error


def _next_cursor(response: httpx2.Response) -> str:
    link = response.links.get("next", {}).get("url", "")
    cursor = parse_qs(urlsplit(link).query).get("cursor", [""])[-1]
    if len(cursor) > MAX_CURSOR_LENGTH:
        raise Unclear("a cursor of more than 2,048 characters")
    return cursor
