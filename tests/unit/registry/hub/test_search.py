"""Queries as the Hub takes them."""

from typing import Any

import pytest
from slipway_registry.hub.search import RepoSort, SearchQuery


def params(**fields: Any) -> dict[str, Any]:
    found = SearchQuery(**fields).params()
    del found["expand"]
    return found


def test_an_empty_query_asks_for_what_trends() -> None:
    assert params() == {"sort": "trendingScore", "limit": 20}


def test_every_filter() -> None:
    assert params(
        query="qwen coder",
        author="Qwen",
        task="text-generation",
        library="transformers",
        tags=("license:apache-2.0", "en"),
        gguf_only=True,
        gated=False,
        min_parameters=500_000_000,
        max_parameters=7_000_000_000,
        sort=RepoSort.UPDATED,
        page_size=100,
    ) == {
        "search": "qwen coder",
        "author": "Qwen",
        "pipeline_tag": "text-generation",
        "filter": ["license:apache-2.0", "en", "transformers", "gguf"],
        "gated": "false",
        "num_parameters": "min:500M,max:7B",
        "sort": "lastModified",
        "limit": 100,
    }


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, None, "min:0"), (None, 1_234_567, "max:1234567"), (1000, None, "min:1K"), (6_000_000_000, 1, "min:6B,max:1")],
)
def test_parameter_ranges(low: int | None, high: int | None, text: str) -> None:
    assert params(min_parameters=low, max_parameters=high)["num_parameters"] == text


def test_gated_only() -> None:
    assert params(gated=True)["gated"] == "true"
