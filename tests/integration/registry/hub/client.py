"""The registry's side of the Hub, set up as a test wants it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from slipway_registry.hub.credentials import ANONYMOUS, Credential, Credentials
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.listing import RepoTree
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repository import HubRepositories, Repository
from slipway_registry.hub.search import SearchPage, SearchQuery, search
from slipway_registry.hub.settings import HubSettings
from slipway_service.fault import Fault
from slipway_service.weights.names import RepoId, Revision


class HubClient:
    """Gateway, metadata and repositories against one endpoint. Waits are noted in `slept` and not waited."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self.slept: list[float] = []
        self.now = 0.0
        self.gateway = HubGateway(
            replace(HubSettings(endpoint=endpoint), **settings),
            sleep=self._sleep,
            clock=lambda: self.now,
            jitter=lambda low, high: high,
        )
        self.metadata = HubMetadata(self.gateway)
        self.repositories = HubRepositories(self.gateway, self.metadata)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def tree(self, repo: str, revision: str = "main", credential: Credential = ANONYMOUS) -> RepoTree:
        return await self.metadata.tree(RepoId(repo), Revision(revision), credential)

    async def get(
        self, repo: str, revision: str = "main", credential: Credential = ANONYMOUS, **options: Any
    ) -> Repository:
        return await self.repositories.get(RepoId(repo), Revision(revision), credential, **options)

    async def search(self, cursor: str = "", credential: Credential = ANONYMOUS, **query: Any) -> SearchPage:
        return await search(self.gateway, SearchQuery(**query), cursor, credential)


async def fault_of(call: Awaitable[object]) -> Fault:
    """The fault that a call ends with."""
    try:
        await call
    except Fault as fault:
        return fault
    raise AssertionError("no fault")


def caller(token: str) -> Credential:
    """A credential that came with a call."""
    return Credentials().of_call(token)


MakeClient = Callable[..., HubClient]
