"""From the requests of slipway.registry.v1 to the registry's values; what is wrong is collected, not raised."""

import unicodedata
from collections.abc import Mapping, Sequence

from slipway.common.v1 import device_pb2
from slipway.registry.v1 import catalog_service_pb2 as catalog_pb
from slipway.registry.v1 import download_pb2, selection_pb2
from slipway_service.handlers import Context
from slipway_service.validation import Fields, PageSize, ResourceName
from slipway_service.weights.memory import DeviceMemory
from slipway_service.weights.names import RepoId, Revision
from slipway_service.weights.selection import (
    DefaultSelection,
    EverySelection,
    PatternSelection,
    Selection,
    VariantSelection,
)

from slipway_registry.hub import search
from slipway_registry.hub.credentials import Credential, Credentials
from slipway_registry.jobs.records import State

DOWNLOAD_NAME = ResourceName.of("downloads")

TOKEN_KEY = "x-hf-token"
"""Call metadata: a caller's own token for the Hub, used for this call's requests and never stored."""

_UNSEEN = {"Cc", "Zl", "Zp"}
"""Unicode's categories of control characters and of what ends a line."""

_MOST_DEVICES = 64
_MOST_VARIANT = 256

_SORTS: Mapping[int, search.RepoSort] = {
    catalog_pb.REPO_SORT_UNSPECIFIED: search.RepoSort.TRENDING,
    catalog_pb.REPO_SORT_TRENDING: search.RepoSort.TRENDING,
    catalog_pb.REPO_SORT_DOWNLOADS: search.RepoSort.DOWNLOADS,
    catalog_pb.REPO_SORT_LIKES: search.RepoSort.LIKES,
    catalog_pb.REPO_SORT_UPDATED: search.RepoSort.UPDATED,
    catalog_pb.REPO_SORT_CREATED: search.RepoSort.CREATED,
}

_STATES: Mapping[int, State] = {download_pb2.DownloadState.Value(f"DOWNLOAD_STATE_{state}"): state for state in State}

_GATED: Mapping[int, bool | None] = {
    catalog_pb.GATED_FILTER_UNSPECIFIED: None,
    catalog_pb.GATED_FILTER_OPEN_ONLY: False,
    catalog_pb.GATED_FILTER_GATED_ONLY: True,
}


def credential(context: Context, credentials: Credentials) -> Credential:
    """Who asks the Hub for this call: the caller, if it brought a token, else the registry.

    Raises:
        Fault: CREDENTIAL_INVALID, SERVICE_CREDENTIAL_INVALID.
    """
    token = dict(context.invocation_metadata() or ()).get(TOKEN_KEY)
    return credentials.of_call(token if isinstance(token, str) else None)


def repo_at(fields: Fields, repo_id: str, revision: str) -> tuple[RepoId, Revision]:
    """The repository and revision that a request names; an empty revision is `main`."""
    return (
        fields.parse("repo_id", RepoId.parse, repo_id),
        fields.parse("revision", Revision.parse_or_default, revision),
    )


def one_line(text: str) -> str:
    """What people read in lists. Raises ValueError: it is blank without being empty, or has control characters."""
    if text and not text.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(letter) in _UNSEEN for letter in text):
        raise ValueError("must be one line, without control characters")
    return text


def selection(message: selection_pb2.Selection) -> Selection:
    """Which files are meant. Raises ValueError: it says nothing, or too much."""
    match message.WhichOneof("selection"):
        case "variant":
            if not 0 < len(message.variant) <= _MOST_VARIANT:
                raise ValueError("name a variant, for example Q4_K_M")
            return VariantSelection(message.variant)
        case "patterns":
            return PatternSelection.parse(message.patterns.include, message.patterns.exclude)
        case "everything":
            if not message.everything:
                raise ValueError("everything must be true, or left out")
            return EverySelection()
        case _:
            return DefaultSelection()


def download_state(value: int) -> State:
    """A state to list. Raises ValueError: there is no such state."""
    if (found := _STATES.get(value)) is None:
        raise ValueError("must be a DOWNLOAD_STATE_…")
    return found


def devices(messages: Sequence[device_pb2.DeviceMemory]) -> tuple[DeviceMemory, ...]:
    """Devices to say for what fits. Raises ValueError: too many."""
    if len(messages) > _MOST_DEVICES:
        raise ValueError(f"must be at most {_MOST_DEVICES}")
    return tuple(
        DeviceMemory(device_id=it.device_id, free_bytes=it.free_bytes, total_bytes=it.total_bytes) for it in messages
    )


def search_query(request: catalog_pb.SearchReposRequest) -> search.SearchQuery:
    """The search that a request asks for. Raises Fault: INVALID_FIELDS."""
    low = request.min_parameters if request.HasField("min_parameters") else None
    high = request.max_parameters if request.HasField("max_parameters") else None
    with Fields() as fields:
        size = fields.parse("page_size", PageSize.parse, request.page_size)
        longest = search.MAX_QUERY_LENGTH
        fields.check("query", len(request.query) <= longest, f"must be at most {longest} characters")
        fields.check("tags", len(request.tags) <= search.MAX_TAGS, f"must be at most {search.MAX_TAGS}")
        fields.check("sort", request.sort in _SORTS, "must be a REPO_SORT_…, or left out")
        fields.check("gated", request.gated in _GATED, "must be a GATED_FILTER_…, or left out")
        in_order = low is None or high is None or low <= high
        fields.check("min_parameters", in_order, "must be at most max_parameters")
    return search.SearchQuery(
        query=request.query,
        author=request.author,
        task=request.task,
        library=request.library,
        tags=tuple(request.tags),
        gguf_only=request.gguf_only,
        gated=_GATED[request.gated],
        min_parameters=low,
        max_parameters=high,
        sort=_SORTS[request.sort],
        page_size=min(size.items, search.MAX_PAGE_SIZE) if request.page_size else search.DEFAULT_PAGE_SIZE,
    )
