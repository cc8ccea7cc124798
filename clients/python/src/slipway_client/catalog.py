"""Calls of CatalogService: the Hub's model repositories."""

from collections.abc import Iterable

from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.common.v1.variant_pb2 import RepoFile
from slipway.registry.v1.catalog_service_pb2 import (
    GatedFilter,
    GetRepoRequest,
    ListRepoFilesRequest,
    ListRepoFilesResponse,
    ListRepoRefsRequest,
    ListRepoRefsResponse,
    RepoSort,
    SearchReposRequest,
    SearchReposResponse,
)
from slipway.registry.v1.catalog_service_pb2_grpc import CatalogServiceStub
from slipway.registry.v1.repo_pb2 import Repo, RepoRef, RepoSummary

from slipway_client.backoff import Backoff
from slipway_client.client import LIST_PAGE, Client, collect
from slipway_client.connection import Connection, token_metadata
from slipway_client.words import value

SEARCH_PAGE = 100
"""Most results that one SearchRepos answers with."""


class CatalogCalls(Client):
    """Search and read repositories. `hf_token` is the caller's own Hub token, used for that call only."""

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        super().__init__(connection, backoff=backoff)
        self._catalog = CatalogServiceStub(connection.channel)

    async def search(
        self,
        query: str = "",
        *,
        author: str = "",
        task: str = "",
        library: str = "",
        tags: Iterable[str] = (),
        gguf_only: bool = False,
        gated: str = "",
        min_parameters: int | None = None,
        max_parameters: int | None = None,
        sort: str = "",
        limit: int = 20,
        hf_token: str = "",
    ) -> list[RepoSummary]:
        """The first `limit` repositories for which all filters hold.

        `task` is the Hub's pipeline tag; `gated` is `open-only` or `gated-only`; `sort` is `trending`, `downloads`,
        `likes`, `updated` or `created`.

        Raises:
            ValueError: `gated` or `sort` is no such word.
            SlipwayError: INVALID_FIELDS, CREDENTIAL_INVALID, SERVICE_CREDENTIAL_INVALID, HUB_RATE_LIMITED,
                HUB_UNREACHABLE, HUB_ERROR, OFFLINE.
        """
        request = SearchReposRequest(
            query=query,
            author=author,
            task=task,
            library=library,
            tags=tags,
            gguf_only=gguf_only,
            gated=value(GatedFilter, gated),
            min_parameters=min_parameters,
            max_parameters=max_parameters,
            sort=value(RepoSort, sort),
            page_size=min(limit, SEARCH_PAGE),
        )

        async def page(token: str) -> SearchReposResponse:
            request.page_token = token
            return await self._catalog.SearchRepos(request, metadata=token_metadata(hf_token))

        return await collect(page, lambda page: page.repos, limit=limit)

    async def get_repo(
        self,
        repo_id: str,
        revision: str = "",
        *,
        devices: Iterable[DeviceMemory] = (),
        context_tokens: int = 0,
        hf_token: str = "",
    ) -> Repo:
        """A repository at a revision: files, variants, and for each of `devices` whether they fit.

        Raises:
            SlipwayError: REPO_NOT_FOUND, REVISION_NOT_FOUND, REPO_GATED, REPO_DISABLED, HUB_ANSWER_UNSAFE, and those of
                `search`.
        """
        request = GetRepoRequest(repo_id=repo_id, revision=revision, devices=devices, context_tokens=context_tokens)
        return (await self._catalog.GetRepo(request, metadata=token_metadata(hf_token))).repo

    async def list_repo_files(self, repo_id: str, revision: str = "", *, hf_token: str = "") -> list[RepoFile]:
        """Every file of a repository at a revision, by path. Raises as `get_repo`."""
        request = ListRepoFilesRequest(repo_id=repo_id, revision=revision, page_size=LIST_PAGE)

        async def page(token: str) -> ListRepoFilesResponse:
            request.page_token = token
            return await self._catalog.ListRepoFiles(request, metadata=token_metadata(hf_token))

        return await collect(page, lambda page: page.files)

    async def list_repo_refs(self, repo_id: str, *, hf_token: str = "") -> list[RepoRef]:
        """Branches, tags and pull requests. Raises as `get_repo`."""
        request = ListRepoRefsRequest(repo_id=repo_id, page_size=LIST_PAGE)

        async def page(token: str) -> ListRepoRefsResponse:
            request.page_token = token
            return await self._catalog.ListRepoRefs(request, metadata=token_metadata(hf_token))

        return await collect(page, lambda page: page.refs)
