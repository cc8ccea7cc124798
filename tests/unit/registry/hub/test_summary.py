"""Model objects of the API, sensible ones and others."""

from datetime import UTC, datetime
from typing import Any

import pytest
from huggingface_hub import ModelInfo
from hypothesis import given
from hypothesis import strategies as st
from slipway_registry.hub.summary import Gating, RepoSummary, summary_of

COMMIT = "c" * 40
ITEM = {
    "id": "org/m",
    "sha": COMMIT,
    "pipeline_tag": "text-generation",
    "library_name": "transformers",
    "tags": ["gguf", "license:apache-2.0"],
    "gated": "manual",
    "private": True,
    "downloads": 12,
    "likes": 3,
    "trendingScore": 1.5,
    "safetensors": {"parameters": {"BF16": 7}, "total": 7},
    "createdAt": "2024-01-02T03:04:05.000Z",
    "lastModified": "2025-01-02T03:04:05.000Z",
}


def summary(**changes: Any) -> RepoSummary:
    return summary_of(ModelInfo(**{**ITEM, **changes}))  # type: ignore[no-untyped-call]


def test_a_model_object() -> None:
    found = summary()
    assert found == RepoSummary(
        repo=found.repo,
        commit=found.commit,
        pipeline_tag="text-generation",
        library="transformers",
        tags=("gguf", "license:apache-2.0"),
        gating=Gating.MANUAL,
        private=True,
        downloads=12,
        likes=3,
        trending_score=1.5,
        parameters=7,
        create_time=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        update_time=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert (found.repo, found.commit, found.license) == ("org/m", COMMIT, "apache-2.0")


@pytest.mark.parametrize(
    ("gated", "gating"),
    [(False, Gating.OPEN), ("auto", Gating.AUTOMATIC), ("manual", Gating.MANUAL), (None, None), ("new", None)],
)
def test_gating(gated: object, gating: Gating | None) -> None:
    assert summary(gated=gated).gating is gating


def test_parameters_of_a_gguf() -> None:
    assert summary(safetensors=None, gguf={"total": 8}).parameters == 8
    assert summary(safetensors=None, gguf=None).parameters is None


@given(
    st.sampled_from([name for name in ITEM if name not in ("id", "safetensors", "createdAt", "lastModified")]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({"a": 1}),
)
def test_no_value_is_taken_for_what_it_is_not(name: str, value: object) -> None:
    found = summary(**{name: value})
    assert type(found.downloads) is int
    assert 0 <= found.downloads < 1 << 63
    assert type(found.private) is bool
    assert all(type(tag) is str for tag in found.tags)


@pytest.mark.parametrize("repo", ["../x", 7, None, "a/b/c"])
def test_what_names_no_repository_is_none(repo: object) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        summary(id=repo)
