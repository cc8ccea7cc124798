"""A runner that is emptied, and takes models again."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from slipway_client import SlipwayError
from slipway_client.sync import SyncRunner

from tests.e2e.stack import Stack, running, wait_for
from tests.hub.models.demo import NANO_CHAT

CHAT = "slipway-demo/nano-chat-GGUF"
MODELS = "slipway.runner.v1.ModelService"


def test_a_drained_runner_finishes_what_it_answers_and_takes_nothing_new(stack: Stack) -> None:
    model = stack.slipway("--json", "load", CHAT, "--id", "first").lines[-1]
    with ThreadPoolExecutor(1) as beside:
        os.kill(model["pid"], signal.SIGSTOP)  # what it is asked now is in flight until it goes on
        try:
            answer = beside.submit(stack.slipway, "chat", "first", "Hello")
            wait_for(lambda: stack.in_flight() == 1, "the request to be in flight")
            runner = drain(stack, drainTimeout="120s")
            assert runner["draining"]
            states = [one["state"] for one in stack.slipway("--json", "ps").lines]
        finally:
            os.kill(model["pid"], signal.SIGCONT)
        assert states == ["MODEL_STATE_UNLOADING"]
        assert answer.result().out.strip() == NANO_CHAT.sentence
    wait_for(lambda: not stack.slipway("--json", "ps").lines, "the models to be gone")
    assert not any(running(pid) for pid in model["pids"])

    refused = stack.slipway("--json", "load", CHAT, "--id", "second", check=False)
    assert json.loads(refused.err)["error"]["reason"] == "DRAINING"
    assert health(stack, MODELS) == "NOT_SERVING"
    assert health(stack, "slipway.runner.v1.RunnerService") == "SERVING"

    assert "draining" not in drain(stack, undo=True)
    assert health(stack, MODELS) == "SERVING"
    stack.slipway("load", CHAT, "--id", "second")
    stack.slipway("unload", "second")


def test_models_that_are_kept_go_on_serving(stack: Stack) -> None:
    model = stack.slipway("--json", "load", CHAT, "--id", "kept").lines[-1]
    drain(stack, keepModels=True)
    try:
        assert stack.slipway("chat", "kept", "Hello").out.strip() == NANO_CHAT.sentence
        joined = stack.slipway("--json", "load", CHAT, "--id", "kept").lines[-1]
        assert (joined["uid"], joined["state"]) == (model["uid"], "MODEL_STATE_LOADED")
        refused = stack.slipway("--json", "load", CHAT, "--id", "new", check=False)
        assert json.loads(refused.err)["error"]["reason"] == "DRAINING"
    finally:
        drain(stack, undo=True)
        stack.slipway("unload", "kept")


def test_an_undo_takes_no_other_fields(stack: Stack) -> None:
    result = stack.curl(
        stack.runner, "slipway.runner.v1.RunnerService/DrainRunner", {"undo": True, "drainTimeout": "1s"}
    )
    assert json.loads(result.err)["message"].startswith("INVALID_FIELDS: undo: ")


def test_a_log_that_is_followed_ends_when_the_runner_stops(own_stack: Stack) -> None:
    own_stack.slipway("load", CHAT, "--id", "chat")

    def leave(error: SlipwayError, _delay: float) -> None:
        raise error

    with SyncRunner.connect(own_stack.runner.address) as runner:
        pieces = runner.read_logs("chat", follow=True, on_disconnect=leave)
        next(pieces)
        assert own_stack.runner.process is not None
        own_stack.runner.process.terminate()
        with pytest.raises(SlipwayError) as ended:
            list(pieces)
    assert ended.value.reason == "DRAINING"
    assert own_stack.runner.stop() == 0


def drain(stack: Stack, **order: bool | str) -> dict[str, Any]:
    result = stack.curl(stack.runner, "slipway.runner.v1.RunnerService/DrainRunner", order)
    assert result.code == 0, result.err
    runner: dict[str, Any] = json.loads(result.out)["runner"]
    return runner


def health(stack: Stack, service: str) -> str:
    answer = stack.curl(stack.runner, "grpc.health.v1.Health/Check", {"service": service})
    return str(json.loads(answer.out)["status"])
