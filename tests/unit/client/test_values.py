"""Plain values to messages of the contract and back to words."""

import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.registry.v1.catalog_service_pb2 import RepoSort
from slipway.registry.v1.download_pb2 import DownloadState
from slipway.registry.v1.selection_pb2 import PatternSelection, Selection
from slipway.runner.v1.model_pb2 import ModelSpec, RepoSource, RestartPolicy
from slipway_client.backoff import Backoff
from slipway_client.client import collect, duration, resource_name
from slipway_client.downloads import select
from slipway_client.specs import model_spec, repo_and_revision
from slipway_client.words import value, word, words


def test_words_of_enums() -> None:
    assert word(DownloadState, DownloadState.DOWNLOAD_STATE_BACKING_OFF) == "BACKING_OFF"
    assert word(DownloadState, 99) == "99"
    assert list(words(RestartPolicy)) == ["never", "on-failure", "always"]
    assert value(RestartPolicy, "On-Failure") == RestartPolicy.RESTART_POLICY_ON_FAILURE
    assert value(RepoSort, "") == RepoSort.REPO_SORT_UNSPECIFIED


@pytest.mark.parametrize("text", ["loud", "unspecified"])
def test_a_word_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="none of trending, downloads, likes, updated, created"):
        value(RepoSort, text)


def test_selection() -> None:
    assert select() is None
    assert select(variant="Q4_K_M") == Selection(variant="Q4_K_M")
    assert select(everything=True) == Selection(everything=True)
    assert select(exclude=["*.h5"]) == Selection(patterns=PatternSelection(exclude=["*.h5"]))
    with pytest.raises(ValueError, match="by variant, or by patterns"):
        select(variant="Q4_K_M", include=["*.gguf"])


def test_model_spec() -> None:
    assert model_spec("org/m", "main", restart_policy="never", start_timeout=1.5) == ModelSpec(
        repo=RepoSource(repo_id="org/m", revision="main"),
        restart_policy=RestartPolicy.RESTART_POLICY_NEVER,
        start_timeout=Duration(seconds=1, nanos=500_000_000),
    )
    assert model_spec(path="/models/m.gguf") == ModelSpec(path="/models/m.gguf")
    for repo_id, path in (("", ""), ("org/m", "/m")):
        with pytest.raises(ValueError, match="a repository or a path"):
            model_spec(repo_id, path=path)


def test_repo_and_revision() -> None:
    assert repo_and_revision("org/m") == ("org/m", "")
    assert repo_and_revision("org/m@refs/pr/1") == ("org/m", "refs/pr/1")
    for text in ("", "@main", "org/m@"):
        with pytest.raises(ValueError, match="REPO or REPO@REVISION"):
            repo_and_revision(text)


def test_names_and_durations() -> None:
    assert resource_name("models", "qwen") == resource_name("models", "models/qwen") == "models/qwen"
    assert duration(None) is None
    assert duration(0.25) == Duration(nanos=250_000_000)


def test_backoff_doubles_up_to_its_bound() -> None:
    backoff = Backoff(first=0.5, longest=3.0, draw=lambda: 1.0)
    assert [backoff.delay(failures) for failures in (1, 2, 3, 4, 1000)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.delay(1, at_least=5.0) == 5.5
    assert Backoff(draw=lambda: 0.0).delay(7) == 0.0


@pytest.mark.anyio
async def test_pages_are_read_as_far_as_needed() -> None:
    pages = {"": ([1, 2], "b"), "b": ([3, 4], "c"), "c": ([5], "")}
    asked: list[str] = []

    class Numbers:
        def __init__(self, token: str) -> None:
            self.items, self.next_page_token = pages[token]

    async def read(token: str) -> Numbers:
        asked.append(token)
        return Numbers(token)

    assert await collect(read, lambda page: page.items) == [1, 2, 3, 4, 5]
    asked.clear()
    assert await collect(read, lambda page: page.items, limit=3) == [1, 2, 3]
    assert asked == ["", "b"]
