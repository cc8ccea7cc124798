"""The main job: searched, downloaded, loaded on a real backend, watched, asked, unloaded; as a script does it."""

import json
import urllib.request
from typing import Any

import pytest

from tests.e2e.stack import WAIT_SECONDS, Stack, running, wait_for
from tests.hub.models.demo import SMALL_LLAMA, TINY_CHAT

CHAT = "slipway-demo/tiny-chat-GGUF"


def test_search_finds_by_words_and_format(stack: Stack) -> None:
    found = [line["repoId"] for line in stack.slipway("--json", "search", "tiny", "--gguf").lines]

    assert CHAT in found
    assert "slipway-demo/tiny-llama" not in found


def test_info_tells_variants_and_the_default(stack: Stack) -> None:
    (repo,) = stack.slipway("--json", "info", CHAT).lines

    assert {one["name"] for one in repo["variants"]} >= {"Q4_K_M", "Q8_0", "F16", "F32"}
    assert [one["name"] for one in repo["variants"] if one.get("default")] == ["Q4_K_M"]


def test_pull_ends_with_a_snapshot_that_native_tools_find(stack: Stack) -> None:
    last = stack.slipway("--json", "pull", CHAT, "--variant", "Q8_0").lines[-1]

    assert last["state"] == "DOWNLOAD_STATE_SUCCEEDED"
    snapshot = stack.hub_cache / last["snapshotPath"]
    assert (snapshot / "tiny-chat-Q8_0.gguf").stat().st_size == int(
        next(one for one in _variants(stack) if one["name"] == "Q8_0")["sizeBytes"]
    )
    assert (stack.hub_cache / "models--slipway-demo--tiny-chat-GGUF/refs/main").read_text() == last["commit"]


@pytest.mark.parametrize(
    ("repo", "backend", "shards", "sentence"),
    [
        pytest.param(CHAT, "llama-server", 0, TINY_CHAT.sentence, id="llama-server"),
        pytest.param("slipway-demo/small-llama", "transformers", 4, SMALL_LLAMA.sentence, id="transformers"),
    ],
)
def test_a_model_is_loaded_watched_asked_and_unloaded(
    stack: Stack, repo: str, backend: str, shards: int, sentence: str
) -> None:
    events = stack.slipway("--json", "load", repo, "--id", backend, "--backend", backend).lines

    model = events[-1]
    assert model["state"] == "MODEL_STATE_LOADED"
    assert model["activeTasks"] == ["TASK_GENERATE"]
    fractions = [one["loadProgress"]["fraction"] for one in events if "fraction" in one.get("loadProgress", {})]
    assert fractions == sorted(fractions)
    assert fractions, "no progress was seen"
    assert max(one["loadProgress"].get("doneShards", 0) for one in events if "loadProgress" in one) == shards
    assert stack.slipway("chat", backend, "Hello").out.strip() == sentence

    pids = model["pids"]
    assert all(running(pid) for pid in pids)
    stack.slipway("unload", backend)
    assert not any(running(pid) for pid in pids)
    assert backend not in stack.slipway("ps").out


def test_a_detached_load_is_joined_by_another(stack: Stack) -> None:
    (model,) = stack.slipway("--json", "load", CHAT, "--id", "detached", "--detach").lines
    assert model["state"] == "MODEL_STATE_LOADING"

    joined = stack.slipway("--json", "load", CHAT, "--id", "detached").lines[-1]
    assert (joined["uid"], joined["state"]) == (model["uid"], "MODEL_STATE_LOADED")
    stack.slipway("unload", "detached")


def test_the_active_model_answers_requests_that_name_none(stack: Stack) -> None:
    stack.slipway("load", CHAT, "--id", "first")
    stack.slipway("load", CHAT, "--id", "second", "--variant", "Q8_0")
    assert _active(stack) == "second"

    stack.slipway("activate", "first")
    assert _active(stack) == "first"
    for model in ("first", "second"):
        stack.slipway("unload", model)


def test_an_error_is_one_json_line_with_its_reason(stack: Stack) -> None:
    result = stack.slipway("--json", "load", "slipway-demo/missing", check=False)

    assert result.code == 3
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert json.loads(line)["error"]["reason"] == "REPO_NOT_FOUND"


def test_logs_are_read_and_followed_to_the_end(stack: Stack) -> None:
    stack.slipway("load", CHAT, "--id", "talkative")
    wait_for(lambda: "model loaded" in stack.slipway("logs", "talkative").out, "the backend to say so")
    stack.slipway("unload", "talkative")


def test_metrics_are_served_under_the_usual_names(stack: Stack) -> None:
    stack.slipway("ps")
    (count,) = stack.metric('grpc_server_handled_total{grpc_code="OK",grpc_method="ListModels"')
    assert count >= 1


def test_a_runner_that_is_killed_finds_its_model_again(own_stack: Stack) -> None:
    before = own_stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    own_stack.runner.kill()
    assert running(before["pid"])

    own_stack.runner.start()
    wait_for(lambda: _states(own_stack).get("chat") == "MODEL_STATE_LOADED", "the model to be adopted")

    (after,) = own_stack.slipway("--json", "ps").lines
    assert (after["pid"], after["uid"], after["adopted"]) == (before["pid"], before["uid"], True)
    assert own_stack.slipway("chat", "chat", "Hello").out.strip() == TINY_CHAT.sentence


def test_a_registry_that_is_killed_goes_on_with_its_downloads(own_stack: Stack) -> None:
    (download,) = own_stack.slipway("--json", "pull", CHAT, "--variant", "F32", "--detach").lines
    own_stack.registry.kill()
    own_stack.registry.start()

    name = download["name"].removeprefix("downloads/")
    last = own_stack.slipway("--json", "watch", name).lines[-1]
    assert last.get("download", last)["state"] == "DOWNLOAD_STATE_SUCCEEDED"


def _variants(stack: Stack) -> list[dict[str, Any]]:
    (repo,) = stack.slipway("--json", "info", CHAT).lines
    found: list[dict[str, Any]] = repo["variants"]
    return found


def _states(stack: Stack) -> dict[str, str]:
    return {one["name"].removeprefix("models/"): one["state"] for one in stack.slipway("--json", "ps").lines}


def _active(stack: Stack) -> str:
    gateway = f"http://{stack.runner.addresses['gateway']}/v1/models"
    with urllib.request.urlopen(gateway, timeout=WAIT_SECONDS) as answer:
        (active,) = [one["id"] for one in json.load(answer)["data"] if one["active"]]
    return str(active)
