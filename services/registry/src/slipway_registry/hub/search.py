"""Search for model repositories: every filter and order of the contract, page by page."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from huggingface_hub import ModelInfo
from slipway_service.fault import Fault, Reason

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import Subject, Unclear
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.session import HubSession
from slipway_registry.hub.summary import RepoSummary, summary_of

MAX_QUERY_LENGTH = 256
MAX_TAGS = 32
MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 20

_FIELDS = (
    "createdAt",
    "downloads",
    "gated",
    "gguf",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "safetensors",
    "sha",
    "tags",
    "trendingScore",
)
"""What is asked for of each repository (`expand`); without this the Hub leaves most of it out."""


class RepoSort(StrEnum):
    """What results are ordered by, descending; values are the Hub's names."""

    TRENDING = "trendingScore"
    DOWNLOADS = "downloads"
    LIKES = "likes"
    UPDATED = "lastModified"
    CREATED = "createdAt"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search; all filters set must hold. As `slipway.registry.v1.SearchReposRequest` has them.

    Attributes:
        query: words to find in repository names.
        author, task, library, tags: only those; empty for all.
        gguf_only: only repositories with GGUF files.
        gated: only gated ones, only open ones; None for both.
        min_parameters, max_parameters: bounds, inclusive; None for none.
        sort: the order.
        page_size: results on a page, 1 to 100.
    """

    query: str = ""
    author: str = ""
    task: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()
    gguf_only: bool = False
    gated: bool | None = None
    min_parameters: int | None = None
    max_parameters: int | None = None
    sort: RepoSort = RepoSort.TRENDING
    page_size: int = DEFAULT_PAGE_SIZE

    def params(self) -> dict[str, Any]:
        """The query of `GET /api/models`."""
        tags = [*self.tags, *([self.library] if self.library else []), *(["gguf"] if self.gguf_only else [])]
        wanted: dict[str, Any] = {
            "search": self.query,
            "author": self.author,
            "pipeline_tag": self.task,
            "filter": tags,
            "gated": None if self.gated is None else str(self.gated).lower(),
            "num_parameters": _range(self.min_parameters, self.max_parameters),
            "sort": self.sort.value,
            "limit": self.page_size,
            "expand": list(_FIELDS),
        }
        return {name: value for name, value in wanted.items() if value not in (None, "", [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """Results, and the Hub's cursor to the next page, empty after the last."""

    repos: tuple[RepoSummary, ...]
    cursor: str


async def search(gateway: HubGateway, query: SearchQuery, cursor: str, credential: Credential) -> SearchPage:
    """One page of a search; `cursor` is that of the page before, empty for the first.

    Raises:
        Fault: PAGE_TOKEN_INVALID where the Hub refuses the cursor, and the Hub's reasons.
    """

    def work(session: HubSession) -> SearchPage:
        params = query.params() | ({"cursor": cursor} if cursor else {})
        items, following = session.page("/api/models", params)
        return SearchPage(repos=_summaries(items), cursor=following)

    async def ask() -> SearchPage:
        return await gateway.call(credential, Subject(), work)

    try:
        return await gateway.shared(credential, ("search", query, cursor), ask)
    except Fault as fault:
        if cursor and fault.facts.get("hub_status") == "400":
            raise Fault(Reason.PAGE_TOKEN_INVALID, "The Hub no longer knows this page: start at the first.") from fault
        raise


def _summaries(items: Any) -> tuple[RepoSummary, ...]:
    if not isinstance(items, list):
        raise Unclear("a list of models that is not one")
    return tuple(summary_of(ModelInfo(**item)) for item in items)  # type: ignore[no-untyped-call]


def _range(low: int | None, high: int | None) -> str:
    """As the Hub writes parameter ranges: `min:6B,max:128B`."""
    bounds = (("min", low), ("max", high))
    return ",".join(f"{name}:{_count(value)}" for name, value in bounds if value is not None)


def _count(value: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)
