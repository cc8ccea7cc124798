"""A registry that is killed: models are loaded from the cache, loads under way go on, and pins are put right after."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Stack, wait_for
from tests.hub.models.demo import TINY_CHAT
from tests.hub.origin import bound
from tests.hub.process import HubProcess

CHAT = "slipway-demo/tiny-chat-GGUF"
SLOWLY = 100_000
"""Bytes a second: the largest variant would take ten minutes."""


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """A Hub for one test alone."""
    with HubProcess("--demo") as hub:
        yield hub


@pytest.fixture
def stack(hub: HubProcess, tmp_path: Path) -> Iterator[Stack]:
    """A stack on that Hub, whose registry comes back where it was."""
    with bound(0) as reserved:
        stack = Stack(tmp_path, hub.endpoint, f"--listen=127.0.0.1:{reserved.getsockname()[1]}")
        stack.start()
        try:
            yield stack
        finally:
            stack.stop()


def test_without_the_registry_the_cache_is_loaded_from_and_pinned_later(stack: Stack) -> None:
    first = stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    assert not first.get("registryBypassed")
    stack.slipway("unload", "chat")
    stack.registry.kill()

    model = stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    assert model["state"] == "MODEL_STATE_LOADED"
    assert model["registryBypassed"]
    assert (model["commit"], model["variant"], model["modelPath"]) == (
        first["commit"],
        first["variant"],
        first["modelPath"],
    )
    assert stack.slipway("chat", "chat", "Hello").out.strip() == TINY_CHAT.sentence
    refused = stack.slipway("--json", "load", CHAT, "--id", "other", "--variant", "F32", check=False)
    assert json.loads(refused.err)["error"]["reason"] == "REGISTRY_UNAVAILABLE"
    unknown = stack.slipway("--json", "load", "slipway-demo/nano-chat-GGUF", check=False)
    assert json.loads(unknown.err)["error"]["reason"] == "REGISTRY_UNAVAILABLE"

    stack.registry.start()
    wait_for(lambda: [pin["claim"] for pin in stack.pins()] == [model["uid"]], "the model's files to be pinned")

    stack.registry.kill()  # nobody is there to take the pin back
    stack.slipway("unload", "chat")
    stack.registry.start()
    wait_for(lambda: not stack.pins(), "the pin of a model that is no more to be given back")


def test_a_registry_that_hangs_is_taken_to_be_away_before_the_caller_gives_up(stack: Stack) -> None:
    first = stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    stack.slipway("unload", "chat")
    assert stack.registry.process is not None
    stack.registry.process.send_signal(signal.SIGSTOP)
    try:
        model = stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    finally:
        stack.registry.process.send_signal(signal.SIGCONT)
    assert (model["state"], model["commit"]) == ("MODEL_STATE_LOADED", first["commit"])
    assert model["registryBypassed"]


def test_a_load_outlives_the_registry_that_fetches_for_it(hub: HubProcess, stack: Stack) -> None:
    hub.throttle("cdn", total=SLOWLY)
    (model,) = stack.slipway("--json", "load", CHAT, "--variant", "F32", "--id", "chat", "--detach").lines
    wait_for(lambda: progress(stack).get("stage") == "LOAD_STAGE_FETCHING", "the download to begin")
    stack.registry.kill()
    assert progress(stack)["stage"] == "LOAD_STAGE_FETCHING"
    wait_for(lambda: "does not answer" in progress(stack).get("detail", ""), "the load to say what it waits for")
    stack.registry.start()
    hub.throttle("cdn")

    last = stack.slipway("--json", "load", CHAT, "--variant", "F32", "--id", "chat").lines[-1]
    assert (last["uid"], last["state"], last["attempt"]) == (model["uid"], "MODEL_STATE_LOADED", 1)
    assert not last.get("registryBypassed")
    assert [pin["claim"] for pin in stack.pins()] == [model["uid"]]


def progress(stack: Stack) -> dict[str, Any]:
    """How far the one model is."""
    answer = stack.curl(stack.runner, "slipway.runner.v1.ModelService/GetModel", {"name": "models/chat"})
    found: dict[str, Any] = json.loads(answer.out)["model"].get("loadProgress", {})
    return found
