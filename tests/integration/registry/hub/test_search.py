"""Searches: filters, orders, pages."""

from datetime import UTC, datetime
from typing import Any

import pytest
from slipway_registry.hub.search import RepoSort
from slipway_registry.hub.summary import Gating
from slipway_service.fault import Reason

from tests.hub.emulator import HubEmulator
from tests.hub.faults import Headers, Status
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def models(hub: HubEmulator) -> None:
    hub.add_repo(
        "qwen/Small-GGUF",
        {"a-Q4_K_M.gguf": "x"},
        pipeline_tag="text-generation",
        library_name="gguf",
        tags=["gguf", "en", "license:apache-2.0"],
        downloads=30,
        likes=1,
        trending=5,
        created=datetime(2024, 1, 1, tzinfo=UTC),
        info={"gguf": {"total": 500_000_000}},
    )
    hub.add_repo(
        "qwen/Large",
        {"model.safetensors": "x"},
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=["en"],
        downloads=20,
        likes=3,
        trending=1,
        gated="auto",
        created=datetime(2025, 1, 1, tzinfo=UTC),
        info={"safetensors": {"parameters": {"BF16": 70_000_000_000}, "total": 70_000_000_000}},
    )
    hub.add_repo(
        "baai/embedder",
        {"config.json": "{}"},
        pipeline_tag="feature-extraction",
        library_name="sentence-transformers",
        tags=["zh"],
        downloads=10,
        likes=2,
        trending=9,
        created=datetime(2023, 1, 1, tzinfo=UTC),
    )


SMALL, LARGE, EMBEDDER = "qwen/Small-GGUF", "qwen/Large", "baai/embedder"


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [EMBEDDER, SMALL, LARGE]),
        ({"query": "qwen"}, [SMALL, LARGE]),
        ({"query": "qwen gguf"}, [SMALL]),
        ({"query": "nothing"}, []),
        ({"author": "baai"}, [EMBEDDER]),
        ({"task": "feature-extraction"}, [EMBEDDER]),
        ({"library": "transformers"}, [LARGE]),
        ({"tags": ("en",)}, [SMALL, LARGE]),
        ({"tags": ("en", "license:apache-2.0")}, [SMALL]),
        ({"gguf_only": True}, [SMALL]),
        ({"gated": True}, [LARGE]),
        ({"gated": False}, [EMBEDDER, SMALL]),
        ({"min_parameters": 1_000_000_000}, [LARGE]),
        ({"max_parameters": 1_000_000_000}, [SMALL]),
        ({"min_parameters": 500_000_000, "max_parameters": 500_000_000}, [SMALL]),
        ({"sort": RepoSort.DOWNLOADS}, [SMALL, LARGE, EMBEDDER]),
        ({"sort": RepoSort.LIKES}, [LARGE, EMBEDDER, SMALL]),
        ({"sort": RepoSort.CREATED}, [LARGE, SMALL, EMBEDDER]),
        ({"sort": RepoSort.UPDATED}, [LARGE, SMALL, EMBEDDER]),
        ({"sort": RepoSort.TRENDING, "author": "qwen"}, [SMALL, LARGE]),
    ],
)
async def test_filters_and_orders(client: HubClient, query: dict[str, Any], expected: list[str]) -> None:
    page = await client.search(**query)
    assert [found.repo for found in page.repos] == expected
    assert page.cursor == ""


@pytest.mark.usefixtures("models")
async def test_what_a_result_says(hub: HubEmulator, client: HubClient) -> None:
    (found,) = (await client.search(query="large")).repos
    assert found.commit == hub.catalogue.repos[LARGE].head.id
    assert (found.pipeline_tag, found.library, found.gating) == ("text-generation", "transformers", Gating.AUTOMATIC)
    assert (found.downloads, found.likes, found.trending_score, found.parameters) == (20, 3, 1.0, 70_000_000_000)
    assert found.create_time == datetime(2025, 1, 1, tzinfo=UTC)


async def test_pages_follow_the_hubs_cursor(hub: HubEmulator, client: HubClient) -> None:
    for number in range(7):
        hub.add_repo(f"org/m{number}", {"a": "x"}, downloads=number)
    found: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = await client.search(cursor, sort=RepoSort.DOWNLOADS, page_size=3)
        found += [item.repo for item in page.repos]
        cursor, pages = page.cursor, pages + 1
    assert found == [f"org/m{number}" for number in reversed(range(7))]
    requests = hub.journal.requests("^/api/models")
    assert len(requests) == pages == 3
    assert all("sort=downloads" in request.target and "limit=3" in request.target for request in requests)


async def test_where_the_next_page_is_asked_for_is_not_the_hubs_to_say(hub: HubEmulator, client: HubClient) -> None:
    """A link that leads elsewhere takes no request there, and no token."""
    for number in range(4):
        hub.add_repo(f"org/m{number}", {"a": "x"})
    elsewhere = f'<{hub.cdn_url}/api/models?cursor=abc&limit=1000>; rel="next"'
    hub.faults.add(Headers({"Link": elsewhere}), "^/api/models", times=1)
    hub.add_user("ann", "hf_ann")
    page = await client.search(page_size=2, credential=caller("hf_ann"))
    assert page.cursor == "abc"
    fault = await fault_of(client.search("abc", page_size=2, credential=caller("hf_ann")))
    assert fault.reason is Reason.PAGE_TOKEN_INVALID
    assert hub.journal.requests(origin="cdn") == []
    assert [request.path for request in hub.journal.requests()] == ["/api/models"] * 2
    assert "limit=2&" in hub.journal.requests()[-1].target


async def test_private_repositories_are_found_by_their_owners(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/secret", {"a": "x"}, private=True)
    hub.add_user("ann", "hf_ann", {"org/secret"})
    assert [found.repo for found in (await client.search(credential=caller("hf_ann"))).repos] == ["org/secret"]
    assert (await client.search()).repos == ()


@pytest.mark.parametrize("body", ["{}", "null", "[1]", "[{}]", '[{"id":"../x"}]', "<html>", "", "[" * 100_000])
async def test_what_is_no_list_of_models(hub: HubEmulator, client: HubClient, body: str) -> None:
    hub.faults.add(Status(200, body=body), "^/api/models")
    assert (await fault_of(client.search())).reason is Reason.HUB_ERROR


async def test_an_answer_is_good_for_a_minute(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "x"})
    for _ in range(3):
        await client.search(query="m")
    await client.search(query="n")
    assert len(hub.journal.requests()) == 2
    client.now += 61
    await client.search(query="m")
    assert len(hub.journal.requests()) == 3
