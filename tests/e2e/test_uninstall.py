"""A model goes when nobody needs it, and stays while somebody does."""

import json

from tests.e2e.stack import Stack

CHAT = "slipway-demo/nano-chat-GGUF"


def test_uninstall_takes_what_is_not_in_use(stack: Stack) -> None:
    pulled = stack.slipway("--json", "pull", CHAT, "--variant", "Q4_K_M").lines[-1]
    snapshot = stack.hub_cache / pulled["snapshotPath"]
    assert snapshot.is_dir()

    stack.slipway("uninstall", CHAT)
    assert not snapshot.exists()
    assert not list((stack.hub_cache / "models--slipway-demo--nano-chat-GGUF").glob("blobs/*"))


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
