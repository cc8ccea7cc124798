"""A model goes when nobody needs it, and stays while somebody does."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running, wait_for
from tests.hub.models.demo import NANO_CHAT

CHAT = "slipway-demo/nano-chat-GGUF"


def test_uninstall_takes_what_is_not_in_use(stack: Stack) -> None:
    pulled = stack.slipway("--json", "pull", CHAT, "--variant", "Q4_K_M").lines[-1]
    snapshot = stack.hub_cache / pulled["snapshotPath"]
    assert snapshot.is_dir()

    stack.slipway("uninstall", CHAT)
    assert not snapshot.exists()
    assert not list((stack.hub_cache / "models--slipway-demo--nano-chat-GGUF").glob("blobs/*"))


def test_uninstall_unloads_what_is_idle_and_deletes_it_in_one_call(stack: Stack) -> None:
    model = stack.slipway("--json", "load", CHAT, "--id", "going").lines[-1]
    snapshot = Path(model["modelPath"]).parent

    (deleted,) = stack.slipway("--json", "uninstall", CHAT).lines
    assert int(deleted["freedBytes"]) > 0
    assert [holder.partition("/")[0] for holder in deleted["releasedHolders"]] == ["runner"]
    assert not snapshot.exists()
    assert not any(running(pid) for pid in model["pids"])
    wait_for(lambda: "going" not in stack.slipway("ps").out, "the model to be gone")


def test_uninstall_waits_for_the_last_request(stack: Stack) -> None:
    model = stack.slipway("--json", "load", CHAT, "--id", "busy").lines[-1]
    with ThreadPoolExecutor(2) as beside:
        os.kill(model["pid"], signal.SIGSTOP)  # what it is asked now is in flight until it goes on
        try:
            answer = beside.submit(stack.slipway, "chat", "busy", "Hello")
            wait_for(lambda: stack.in_flight() == 1, "the request to be in flight")
            deleted = beside.submit(stack.slipway, "uninstall", CHAT)
            wait_for(lambda: _release_requested(stack), "the runner to be asked to let go")
            (state,) = [one["state"] for one in stack.slipway("--json", "ps").lines]
            assert state in ("MODEL_STATE_LOADED", "MODEL_STATE_UNHEALTHY"), "it stays, however long it is silent"
        finally:
            os.kill(model["pid"], signal.SIGCONT)
        assert answer.result().out.strip() == NANO_CHAT.sentence
        assert "freed" in deleted.result().out


def _release_requested(stack: Stack) -> bool:
    return any(pin.get("releaseRequested") for pin in stack.pins())


@pytest.fixture
def firm(hub_endpoint: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose runner releases nothing."""
    stack = Stack(tmp_path, hub_endpoint, runner_options=("--release=never",))
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def test_a_runner_that_never_releases_is_named(firm: Stack) -> None:
    model = firm.slipway("--json", "load", CHAT, "--id", "kept").lines[-1]
    order = {"name": model["snapshot"], "force": True}

    refused = firm.curl(firm.registry, "slipway.registry.v1.SnapshotService/DeleteSnapshot", order)
    message = json.loads(refused.err)["message"]
    assert message.startswith("SNAPSHOT_PINNED: ")
    assert "pinned by runner/" in message
    assert "--release never" in message
    assert "--release never" in firm.slipway("uninstall", CHAT, check=False).err
    assert firm.slipway("chat", "kept", "Hello").out.strip()


def test_what_a_runner_serves_is_not_deleted(stack: Stack) -> None:
    model = stack.slipway("--json", "load", CHAT, "--id", "held").lines[-1]
    assert model["snapshot"].startswith("snapshots/")

    refused = stack.curl(
        stack.registry, "slipway.registry.v1.SnapshotService/DeleteSnapshot", {"name": model["snapshot"]}
    )
    assert json.loads(refused.err)["message"].startswith("SNAPSHOT_PINNED: ")
    assert stack.slipway("chat", "held", "Hello").out.strip()

    stack.slipway("unload", "held")
    freed = json.loads(
        stack.curl(
            stack.registry, "slipway.registry.v1.SnapshotService/DeleteSnapshot", {"name": model["snapshot"]}
        ).out
    )
    assert int(freed["freedBytes"]) > 0
