"""What a model card says of its repository, where the Hub cannot be asked: the YAML block at its top."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import metadata_load
from slipway_service.weights.names import Commit, RepoId

from slipway_registry.hub.summary import MAX_TAGS, RepoSummary, text_of

CARD = "README.md"

MAX_CARD_BYTES = 1 << 20
"""Largest card that is read; the longest on the Hub have a few hundred KiB."""

_LICENSE = "license:"


def summary_of_card(repo: RepoId, commit: Commit, card: Path) -> RepoSummary:
    """The summary of a repository from its card alone; bare where the card is not there or says nothing."""
    said = _metadata(card)
    licence, tags = text_of(said.get("license")), said.get("tags")
    shown = [text_of(tag) for tag in tags[:MAX_TAGS]] if isinstance(tags, list) else []
    return RepoSummary(
        repo=repo,
        commit=commit,
        pipeline_tag=text_of(said.get("pipeline_tag")),
        library=text_of(said.get("library_name")),
        tags=tuple(tag for tag in (*shown, f"{_LICENSE}{licence}" if licence else "") if tag),
    )


def _metadata(card: Path) -> Mapping[Any, Any]:
    try:
        found = metadata_load(card) if card.stat().st_size <= MAX_CARD_BYTES else None
    except Exception:  # not there, or not YAML: the library that parses it has errors of its own
        return {}
    return found or {}
