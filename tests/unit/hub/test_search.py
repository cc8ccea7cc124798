from typing import Any

import pytest

from tests.hub import search
from tests.hub.messages import Request

MODELS: list[dict[str, Any]] = [
    {"id": "a/one", "author": "a", "tags": ["gguf"], "gated": False, "likes": 1, "gguf": {"total": 5_000_000}},
    {"id": "a/two", "author": "a", "tags": ["safetensors", "x"], "gated": "auto", "likes": 3},
    {"id": "b/three", "author": "b", "tags": ["X"], "gated": False, "likes": 2, "safetensors": {"total": 7 * 10**9}},
]


def found(query: str) -> list[str]:
    request = Request(method="GET", target=f"/api/models?{query}", headers={})
    return [model["id"] for model in search.find(MODELS, request)]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("sort=likes", ["a/two", "b/three", "a/one"]),
        ("sort=likes&direction=-1", ["a/two", "b/three", "a/one"]),
        ("sort=likes&direction=1", ["a/one", "b/three", "a/two"]),
        ("author=a&sort=likes", ["a/two", "a/one"]),
        ("search=T", ["a/two", "b/three"]),
        ("search=b%20th", ["b/three"]),
        ("filter=x", ["a/two", "b/three"]),
        ("filter=x&filter=safetensors", ["a/two"]),
        ("filter=x,safetensors", ["a/two"]),
        ("library=gguf", ["a/one"]),
        ("gated=true", ["a/two"]),
        ("gated=False", ["a/one", "b/three"]),
        ("apps=llama.cpp", ["a/one"]),
        ("apps=unknown", []),
        ("inference=warm", []),
        ("num_parameters=min:6B,max:128B", ["b/three"]),
        ("num_parameters=max:5M", ["a/one"]),
        ("num_parameters=min:5.5M", ["b/three"]),
    ],
)
def test_filters_and_sorts(query: str, ids: list[str]) -> None:
    assert found(query) == ids


@pytest.mark.parametrize("query", ["sort=name", "num_parameters=6B", "num_parameters=min:x"])
def test_what_does_not_parse(query: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        found(query)


def test_pages_keep_the_query() -> None:
    target, pages = "/api/models?search=a%2Fb&expand=x&expand=y&limit=2", []
    while target:
        shown, headers = search.page(
            list(range(5)), Request(method="GET", target=target, headers={}), "http://h", size=2
        )
        pages.append(shown)
        target = headers.get("Link", "").removeprefix("<http://h").removesuffix('>; rel="next"')
        assert "search=a%2Fb&expand=x&expand=y&limit=2&cursor=" in target or not target
    assert pages == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="cursor"):
        search.page([], Request(method="GET", target="/?cursor=zzz", headers={}), "", size=2)
