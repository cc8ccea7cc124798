"""A repository as the Hub's API describes it, read with the caution that any server's answer deserves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from huggingface_hub import ModelInfo
from slipway_service.weights.names import Commit, RepoId

MAX_TAGS = 2000
"""So many tags of a repository are kept; the most tagged ones on the Hub have a few hundred."""

_MAX_TEXT = 256


class Gating(StrEnum):
    """Whether and how access to a repository's files must be asked for."""

    OPEN = "OPEN"
    AUTOMATIC = "AUTOMATIC"
    MANUAL = "MANUAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSummary:
    """What a search shows of a repository, as `slipway.registry.v1.RepoSummary` has it.

    None, or an empty text, is what the Hub did not say.
    """

    repo: RepoId
    commit: Commit | None = None
    pipeline_tag: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()
    gating: Gating | None = None
    private: bool = False
    downloads: int = 0
    likes: int = 0
    trending_score: float | None = None
    parameters: int | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def license(self) -> str:
        """The licence's id, from its tag; empty when there is none."""
        prefix = "license:"
        return next((tag.removeprefix(prefix) for tag in self.tags if tag.startswith(prefix)), "")


def summary_of(info: ModelInfo) -> RepoSummary:
    """The summary of a model object. Nothing is taken for what its type claims: the object holds whatever the JSON did.

    Raises:
        ValueError: it does not even name a repository.
    """
    said: Any = info
    tags = said.tags if isinstance(said.tags, list) else []
    return RepoSummary(
        repo=RepoId(text_of(said.id)),
        commit=commit_of(said.sha),
        pipeline_tag=text_of(said.pipeline_tag),
        library=text_of(said.library_name),
        tags=tuple(text_of(tag) for tag in tags[:MAX_TAGS] if isinstance(tag, str)),
        gating=_gating(said.gated),
        private=said.private is True,
        downloads=count_of(said.downloads) or 0,
        likes=count_of(said.likes) or 0,
        trending_score=_number(said.trending_score),
        parameters=_parameters(said),
        create_time=_time(said.created_at),
        update_time=_time(said.last_modified),
    )


def _parameters(said: Any) -> int | None:
    if said.safetensors is not None:
        return count_of(said.safetensors.total)
    return count_of(said.gguf.get("total")) if isinstance(said.gguf, Mapping) else None


def count_of(value: Any) -> int | None:
    """A count that fits an unsigned 64-bit field; None for anything else."""
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def text_of(value: Any) -> str:
    """A text, cut short and fit for a message; empty for anything else."""
    return value.encode("utf-8", "replace").decode()[:_MAX_TEXT] if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e18 else None


def _gating(value: Any) -> Gating | None:
    if value is False:
        return Gating.OPEN
    return {"auto": Gating.AUTOMATIC, "manual": Gating.MANUAL}.get(value) if isinstance(value, str) else None


def commit_of(value: Any) -> Commit | None:
    """A commit; None for anything else."""
    try:
        return Commit(text_of(value))
    except ValueError:
        return None


def _time(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo else None
