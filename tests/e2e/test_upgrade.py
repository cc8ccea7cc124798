"""A runner that is replaced by the next version: its models and its gateway serve on meanwhile."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import WAIT_SECONDS, Stack, running, wait_for
from tests.hub.models.demo import NANO_CHAT

CHAT = "slipway-demo/nano-chat-GGUF"
KEEP = "--keep-models"


@pytest.fixture
def stack(hub_endpoint: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose runner leaves its models running."""
    stack = Stack(tmp_path, hub_endpoint, runner_options=(KEEP,))
    stack.start()
    try:
        yield stack
    finally:
        stack.runner.arguments = tuple(one for one in stack.runner.arguments if one != KEEP)
        stack.runner.stop()
        stack.runner.start()  # one that does not keep them finds them, and ends them with itself
        stack.stop()


def test_models_and_gateway_serve_on_while_the_runner_is_replaced(stack: Stack) -> None:
    before = stack.slipway("--json", "load", CHAT, "--id", "chat").lines[-1]
    gateway = stack.runner.addresses["gateway"]

    assert stack.runner.stop() == 0
    assert all(running(pid) for pid in before["pids"])
    assert answer(gateway) == NANO_CHAT.sentence

    stack.runner.start()
    wait_for(
        lambda: [one["state"] for one in stack.slipway("--json", "ps").lines] == ["MODEL_STATE_LOADED"],
        "the model to be adopted",
    )
    (after,) = stack.slipway("--json", "ps").lines
    assert after["adopted"]
    assert {name: after[name] for name in ("uid", "pid", "port", "state", "loadTime", "activeTasks")} == {
        name: before[name] for name in ("uid", "pid", "port", "state", "loadTime", "activeTasks")
    }
    assert stack.runner.addresses["gateway"] == gateway
    assert answer(gateway) == NANO_CHAT.sentence


def answer(gateway: str) -> str:
    """What the active model says."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    request = urllib.request.Request(
        f"http://{gateway}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
        said: str = json.load(response)["choices"][0]["message"]["content"]
    return said.strip()
