"""huggingface_hub's metadata calls, unmodified, against the emulator."""

from typing import Any

import pytest
from huggingface_hub import HfApi

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import GATED, PRIVATE, TOKEN
from tests.integration.hub.clients import Native


def searches(queries: list[dict[str, Any]]) -> list[list[str]]:
    return [[model.id for model in HfApi().list_models(**query)] for query in queries]


def short(ids: list[str]) -> list[str]:
    return [name.partition("/")[2] for name in ids]


def test_search_filters(demo_native: Native) -> None:
    gguf, by_author, tasks, words, gated, sized, private = demo_native.call(
        searches,
        [
            {"filter": "gguf", "search": "chat"},
            {"author": "nobody"},
            {"pipeline_tag": "text-ranking"},
            {"search": "TINY llama"},
            {"gated": True},
            {"num_parameters": "min:10M,max:1B"},
            {"token": TOKEN, "search": "private"},
        ],
    )
    assert short(gguf) == ["tiny-chat-GGUF", "nano-chat-GGUF", "gated-chat-GGUF"]
    assert by_author == []
    assert short(tasks) == ["tiny-rerank", "tiny-rerank-GGUF"]
    assert short(words) == ["tiny-llama"]
    assert gated == [GATED]
    assert short(sized) == ["tiny-chat-GGUF", "small-llama"]
    assert private == [PRIVATE]


def test_search_sorts(demo_native: Native) -> None:
    orders = ("downloads", "likes", "trending_score", "created_at", "last_modified")
    by_downloads, by_likes, *rest = demo_native.call(searches, [{"sort": order} for order in orders])
    assert short(by_downloads)[:3] == ["tiny-chat-GGUF", "tiny-llama", "gated-chat-GGUF"]
    assert short(by_likes)[:3] == ["tiny-chat-GGUF", "tiny-llama", "gated-chat-GGUF"]
    assert all(sorted(order) == sorted(by_downloads) for order in rest)


def test_search_follows_pages(hub: HubEmulator, native: Native) -> None:
    for number in range(7):
        hub.add_repo(f"org/model-{number}", {"README.md": ""}, downloads=number)
    hub.routes.page_size = 3
    (found,) = native.call(searches, [{"sort": "downloads", "search": "model"}])
    assert short(found) == [f"model-{number}" for number in reversed(range(7))]
    pages = hub.journal.requests(r"^/api/models\?")
    assert ["cursor" in page.target for page in pages] == [False, True, True]
    assert all("sort=downloads" in page.target and "search=model" in page.target for page in pages)


def test_search_stops_at_the_limit(hub: HubEmulator, native: Native) -> None:
    for number in range(5):
        hub.add_repo(f"org/model-{number}", {"README.md": ""})
    (found,) = native.call(searches, [{"limit": 2}])
    assert len(found) == 2
    assert len(hub.journal.requests(r"^/api/models\?")) == 1


def details(repo_id: str) -> dict[str, Any]:
    api = HfApi()
    info = api.model_info(repo_id, files_metadata=True, securityStatus=True)
    expanded = api.model_info(repo_id, expand=["safetensors", "gguf", "config", "cardData", "gated", "siblings"])
    (listed,) = api.list_models(search=repo_id.partition("/")[2] + " ", expand=["safetensors", "sha"], limit=1)
    assert listed.sha == info.sha
    assert expanded.sha is None
    return {
        "files": {s.rfilename: [s.size, s.blob_id, s.lfs.sha256 if s.lfs else None] for s in info.siblings or []},
        "tags": info.tags,
        "pipeline": info.pipeline_tag,
        "library": info.library_name,
        "modified": str(info.last_modified),
        "total": (expanded.safetensors.total if expanded.safetensors else None),
        "gguf": expanded.gguf,
        "config": expanded.config,
        "license": expanded.card_data.license if expanded.card_data else None,
    }


def test_model_info_of_safetensors(demo_hub: HubEmulator, demo_native: Native) -> None:
    found = demo_native.call(details, "slipway-demo/tiny-llama")
    commit = demo_hub.catalogue.repos["slipway-demo/tiny-llama"].head
    assert found["files"] == {
        path: [file.size, file.oid, file.etag if file.lfs else None] for path, file in commit.files.items()
    }
    assert {"safetensors", "transformers", "text-generation", "license:apache-2.0", "llama"} <= set(found["tags"])
    assert (found["pipeline"], found["library"]) == ("text-generation", "transformers")
    assert found["config"]["architectures"] == ["LlamaForCausalLM"]
    assert found["config"]["tokenizer_config"]["eos_token"] == "</s>"
    weights = sum(file.size for path, file in commit.files.items() if path.endswith(".safetensors"))
    assert 0 < weights / 2 - found["total"] < 8_000  # two bytes each, and the headers
    assert found["license"] == "apache-2.0"


def test_model_info_of_gguf(demo_native: Native) -> None:
    found = demo_native.call(details, "slipway-demo/tiny-chat-GGUF")
    assert found["gguf"]["architecture"] == "llama"
    assert found["gguf"]["context_length"] == 4096
    assert found["gguf"]["eos_token"] == "</s>"
    assert found["gguf"]["total"] == pytest.approx(16e6, rel=0.05)
    assert {"gguf", "conversational"} <= set(found["tags"])


def history(repo_id: str) -> dict[str, Any]:
    api = HfApi()
    refs = api.list_repo_refs(repo_id, include_pull_requests=True)
    return {
        "branches": {ref.ref: ref.target_commit for ref in refs.branches},
        "tags": {ref.ref: ref.target_commit for ref in refs.tags},
        "pull_requests": {ref.ref: ref.target_commit for ref in refs.pull_requests or []},
        "commits": [[c.commit_id, c.title] for c in api.list_repo_commits(repo_id, formatted=True)],
        "top": [entry.path for entry in api.list_repo_tree(repo_id)],
        "all": [entry.path for entry in api.list_repo_tree(repo_id, recursive=True)],
        "folder": [
            [entry.path, entry.last_commit.title if entry.last_commit else None]
            for entry in api.list_repo_tree(repo_id, "sub", expand=True)
        ],
        "paths": [info.path for info in api.get_paths_info(repo_id, ["sub", "a.txt", "absent"])],
    }


def test_refs_trees_paths_and_commits(hub: HubEmulator, native: Native) -> None:
    repo = hub.add_repo("org/name", {"a.txt": "a", "sub/b.txt": "b"}, title="first")
    first = repo.head.id
    repo.tag("v1")
    second = repo.commit({"sub/deep/c.bin": Random(1 << 20)}, title="second")
    repo.branch("dev", first)
    proposal = repo.pull_request(3, {"d.txt": "d"})
    hub.routes.page_size = 2
    assert native.call(history, "org/name") == {
        "branches": {"refs/heads/main": second, "refs/heads/dev": first},
        "tags": {"refs/tags/v1": first},
        "pull_requests": {"refs/pr/3": proposal},
        "commits": [[second, "second"], [first, "first"]],
        "top": ["sub", "a.txt"],
        "all": ["sub", "sub/deep", "a.txt", "sub/b.txt", "sub/deep/c.bin"],
        "folder": [["sub/deep", "second"], ["sub/b.txt", "first"]],
        "paths": ["sub", "a.txt"],
    }


def access(token: str) -> list[Any]:
    api = HfApi(token=token)
    api.auth_check(GATED)
    api.auth_check(PRIVATE)
    return [api.whoami()["name"], api.model_info(PRIVATE).private]


def test_a_token_opens_what_its_user_may_read(demo_native: Native) -> None:
    assert demo_native.call(access, TOKEN) == ["demo", True]


def failures(calls: list[list[Any]]) -> list[str]:
    """The exception's class for each call, and of its cause where it is wrapped."""
    api = HfApi()
    seen = []
    for name, keywords in calls:
        try:
            getattr(api, name)(**keywords)
        except Exception as error:
            cause = f" from {type(error.__cause__).__name__}" if type(error).__name__.startswith("Local") else ""
            seen.append(type(error).__name__ + cause)
        else:
            seen.append("none")
    return seen


def test_every_error_is_told_apart(hub: HubEmulator, native: Native) -> None:
    hub.add_user("eve", "hf_eve")
    hub.add_repo("org/open", {"a.txt": "a"})
    hub.add_repo("org/gated", {"w.bin": b"w"}, gated="auto")
    hub.add_repo("org/private", {"a.txt": "a"}, private=True)
    hub.add_repo("org/disabled", {"a.txt": "a"}, disabled=True)
    expected = {
        ("model_info", "org/absent", None): "RepositoryNotFoundError",
        ("model_info", "org/private", None): "RepositoryNotFoundError",
        ("model_info", "org/private", "hf_eve"): "RepositoryNotFoundError",
        ("model_info", "org/disabled", None): "DisabledRepoError",
        ("model_info", "org/gated", None): "none",
        ("auth_check", "org/gated", None): "GatedRepoError",
        ("auth_check", "org/gated", "hf_eve"): "GatedRepoError",
        ("model_info", "org/open", "hf_wrong"): "HfHubHTTPError",
    }
    calls: list[list[Any]] = [[name, {"repo_id": repo, "token": token}] for name, repo, token in expected]
    calls += [
        ["model_info", {"repo_id": "org/open", "revision": "absent"}],
        ["hf_hub_download", {"repo_id": "org/open", "filename": "absent.txt"}],
        ["hf_hub_download", {"repo_id": "org/gated", "filename": "w.bin", "token": "hf_eve"}],
        ["hf_hub_download", {"repo_id": "org/open", "filename": "a.txt", "revision": "absent"}],
        ["whoami", {"token": "hf_wrong"}],
    ]
    assert native.call(failures, calls) == [
        *expected.values(),
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
        "GatedRepoError",
        "RevisionNotFoundError",
        "HfHubHTTPError",
    ]
