"""From a file's name to where its bytes are: the Hub's `resolve` route and the signed links it redirects to.

`GET {endpoint}/{repo}/resolve/{commit}/{path}` answers small files itself (after a redirect on its own origin) and
large ones by a redirect to a signed link of another origin. All parts of a file share that link; when it has expired
(401 or 403 there) the next request resolves again. The bearer goes to the Hub's own origin and nowhere else.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urljoin

from slipway_service.fault import Reason
from slipway_service.weights.names import Commit, FilePath, RepoId

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import Refusal, Subject, fault_of
from slipway_registry.hub.rate import RESOLVERS, RateBudget, retry_after
from slipway_registry.transfer.errors import Away, Setback
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.origin import Origin
from slipway_registry.transfer.response import Response
from slipway_registry.transfer.wire import Wire

# Repository renamed, resolve-cache, CDN, CDN of another region: real chains have at most three.
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
_REFUSALS = {401, 403, 404, 410, 451}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file at a commit of a repository of the Hub at `endpoint` (no slash at its end)."""

    endpoint: str
    repo: RepoId
    commit: Commit
    path: FilePath

    @property
    def url(self) -> str:
        """Its `resolve` route."""
        return f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{quote(self.path)}"

    @property
    def xet_token_url(self) -> str:
        """Where a token for the repository's Xet storage is had."""
        return f"{self.endpoint}/api/models/{self.repo}/xet-read-token/{self.commit}"


@dataclass(frozen=True, slots=True)
class HubLimits:
    """What holds for every request to the Hub itself: its quota, shared by all who ask, its bearer, its refusals."""

    quota: RateBudget

    def headers(self, credential: Credential) -> dict[str, str]:
        """Count a request and give its Authorization.

        Raises:
            Away: the quota is used up; nothing may be asked before `retry_after`.
        """
        if (wait := self.quota.take(credential.key, RESOLVERS)) > 0:
            raise Away("the Hub's quota is used up", reason=Reason.HUB_RATE_LIMITED, retry_after=wait)
        return {"Authorization": f"Bearer {credential.token}"} if credential.token else {}

    def check(self, response: Response, file: HubFile, credential: Credential) -> None:
        """Learn from an answer of the Hub's own origin.

        Raises:
            Setback, Away, Fault: it is no success.
        """
        status, headers = response.status, response.headers
        asked = self.quota.learn(credential.key, RESOLVERS, status, headers) or retry_after(headers)
        if status in _REFUSALS:
            refusal = Refusal(status, response.header("X-Error-Code"), response.header("X-Error-Message"))
            subject = Subject(repo=file.repo, revision=file.commit, path=file.path)
            raise fault_of(refusal, subject, credential, file.endpoint)
        check_passing(response, asked)


class FileSource:
    """Opens ranges of one file; its link is shared by all threads that fetch it.

    Args:
        credential: asked before each request to the Hub, so that a rotated token is used at once.
    """

    def __init__(self, wire: Wire, file: HubFile, credential: Callable[[], Credential], limits: HubLimits) -> None:
        self._wire = wire
        self._file = file
        self._credential = credential
        self._limits = limits
        self._hub = Origin.of(file.endpoint)
        self._link: str | None = None
        self._resolving = threading.Lock()

    @contextlib.contextmanager
    def open(self, start: int, end: int, halt: Halt) -> Iterator[Response]:
        """GET bytes [start, end): the body is that range (206) or the whole file (200).

        Raises:
            Setback, Away: worth another try.
            Fault: the Hub refuses.
            Halted.
        """
        with contextlib.ExitStack() as stack:
            if (link := self._link) is not None:
                response = self._follow(link, start, end, halt, stack)
            else:
                with self._resolving:
                    response = self._follow(self._link or self._file.url, start, end, halt, stack)
            yield response

    def _follow(self, url: str, start: int, end: int, halt: Halt, stack: contextlib.ExitStack) -> Response:
        for _ in range(MAX_REDIRECTS):
            own = Origin.of(url) == self._hub
            headers = self._limits.headers(self._credential()) if own else {}
            with contextlib.ExitStack() as hop:
                ranged = headers | {"Range": f"bytes={start}-{end - 1}"}
                response = hop.enter_context(self._wire.get(url, ranged, halt))
                if response.status not in REDIRECTS:
                    self._check(response, own=own)
                    self._link = None if own else url
                    stack.push(hop.pop_all())
                    return response
                url = urljoin(url, response.header("Location"))
        raise Setback(f"{self._hub}: more than {MAX_REDIRECTS} redirects")

    def _check(self, response: Response, *, own: bool) -> None:
        if own:
            self._limits.check(response, self._file, self._credential())
            return
        if HTTPStatus.BAD_REQUEST <= response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._link = None  # expired, or moved
        check_passing(response, retry_after(response.headers))


def check_passing(response: Response, asked: float | None) -> None:
    """Raises Setback or Away unless the answer is a success; `asked`: seconds to wait, if that was said."""
    text = f"{response.where} answered {response.status}"
    match response.status:
        case HTTPStatus.OK | HTTPStatus.PARTIAL_CONTENT:
            return
        case HTTPStatus.TOO_MANY_REQUESTS:
            raise Away(text, reason=Reason.HUB_RATE_LIMITED, retry_after=asked)
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Away(text, reason=Reason.HUB_ERROR, retry_after=asked)
    raise Setback(text, retry_after=asked)
