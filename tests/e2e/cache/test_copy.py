"""Into the cache and out of it: export and import."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from slipway_client.sync import SyncRegistry

from tests.e2e.cache.commands import BIG, CHAT, MIB, contents, on_disk, pulled, refused, start, told
from tests.e2e.stack import WAIT_SECONDS, Stack, wait_for
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator


def test_out_of_the_cache_and_into_it(stack: Stack, roots: Path) -> None:
    snapshot = pulled(stack)
    out = roots / "chat"
    said = stack.slipway("cache", "export", CHAT, str(out), "--all").out
    files = len(contents(snapshot))
    assert re.search(rf"^✓ exported: {files} files, 6\.3 MB in ", said, re.MULTILINE)
    assert contents(out) == contents(snapshot)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    *_, last = stack.slipway("--json", "cache", "export", CHAT, str(roots / "one"), "--variant", "Q4_K_M").lines
    assert last["doneBytes"] == last["totalBytes"]
    assert "chat-Q8_0.gguf" not in contents(roots / "one")

    stack.slipway("cache", "rm", CHAT)
    (out / "notes.txt").write_text("mine")
    said = stack.slipway("cache", "import", CHAT, str(out)).out
    assert "• notes.txt  left out: the commit has no such file" in said
    assert f"✓ in the cache: {CHAT}@{snapshot.name[:7]} has everything" in said
    assert contents(snapshot) == {name: data for name, data in contents(out).items() if name != "notes.txt"}
    refused_full = refused(stack, 4, "PATH_NOT_ALLOWED", "cache", "export", CHAT, str(out), "--all")
    assert "holds notes.txt, which is no file of the export" in refused_full

    stack.slipway("cache", "rm", CHAT)
    (out / "chat-Q8_0.gguf").write_bytes(bytes((out / "chat-Q8_0.gguf").stat().st_size))
    wrong = told(stack, 12, "cache", "import", CHAT, str(out))
    assert "✗ chat-Q8_0.gguf  left out: its hash is not that of the commit's file" in wrong.out
    assert wrong.err.startswith(f"HASH_MISMATCH: 1 file of {out} is not what {CHAT}@{snapshot.name[:7]} has; ")
    (out / "chat-Q8_0.gguf").unlink()
    os.mkfifo(out / "chat-Q8_0.gguf")
    wrong = told(stack, 12, "cache", "import", CHAT, str(out))
    assert "✗ chat-Q8_0.gguf  left out: a FIFO, no regular file" in wrong.out
    (found,) = stack.slipway("--json", "cache", "ls").lines
    assert {variant["name"]: variant["complete"] for variant in found["variants"]} == {"Q4_K_M": True, "Q8_0": False}
    (roots / "none").mkdir(exist_ok=True)
    (roots / "none" / "README.md").write_text("other")
    refused(stack, 12, "HASH_MISMATCH", "cache", "import", CHAT, str(roots / "none"))
    refused(stack, 3, "REPO_NOT_FOUND", "cache", "import", "org/missing", str(out))


def test_where_exports_may_not_go(stack: Stack, roots: Path, tmp_path: Path) -> None:
    pulled(stack, CHAT, "--variant", "Q8_0")
    relative = refused(stack, 4, "PATH_NOT_ALLOWED", "cache", "export", CHAT, "out")
    assert "the directory is one of the registry's host: absolute, and below one of its --export-roots" in relative
    assert "'out' is relative" in relative
    for verb in ("export", "import"):
        refused(stack, 4, "PATH_NOT_ALLOWED", "cache", verb, CHAT, str(tmp_path))
    lacking = refused(stack, 5, "SNAPSHOT_INCOMPLETE", "cache", "export", CHAT, str(roots / "part"), "--all")
    assert "download it first" in lacking


TURNS = 20


def interrupted(stack: Stack, *arguments: str, undo: Callable[[], object] = lambda: None) -> str:
    """Ctrl-C when it has told how far it is, with the registry stopped so that it cannot be quicker; what it said.

    One that was done before the registry could be stopped is undone, and begun again.
    """
    assert stack.registry.process is not None
    for _ in range(TURNS):
        command = start(stack, "--json", *arguments)
        assert command.stdout is not None
        command.stdout.readline()
        os.kill(stack.registry.process.pid, signal.SIGSTOP)
        try:
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=WAIT_SECONDS)
        finally:
            os.kill(stack.registry.process.pid, signal.SIGCONT)
        if command.returncode != 0:
            break
        undo()
    error = json.loads(err)["error"]
    assert (command.returncode, error["reason"]) == (130, "INTERRUPTED")
    return str(error["message"])


def test_ctrl_c_leaves_nothing_half_done(hub: HubEmulator, stack: Stack, roots: Path) -> None:
    hub.add_repo(BIG, {"model.safetensors": Random(192 * MIB, 1), "config.json": "{}"})
    snapshot = pulled(stack, BIG)
    assert interrupted(stack, "cache", "verify", BIG) == (
        "nothing was changed; what was found right until now stays known as verified"
    )
    stack.slipway("cache", "verify", BIG)

    target = roots / "big"
    assert f"files that were whole by then are in {target}" in interrupted(
        stack, "cache", "export", BIG, str(target), "--all"
    )
    with SyncRegistry.connect(stack.registry.address) as registry:
        wait_for(lambda: registry.list_pins() == [], "the export's hold to end")
    wait_for(lambda: not list(target.glob(".slipway-*")), "the export to end")
    there = contents(target)
    assert there == {name: data for name, data in contents(snapshot).items() if name in there}, "no part of a file"
    stack.slipway("cache", "export", BIG, str(target), "--all")
    assert contents(target) == contents(snapshot)

    stack.slipway("cache", "rm", BIG)
    repo = stack.hub_cache / "models--org--big"
    for _ in range(TURNS):
        assert interrupted(
            stack, "cache", "import", BIG, str(target), undo=lambda: stack.slipway("cache", "rm", BIG)
        ) == ("nothing of it is in the cache unless it was just done; the same command begins anew")
        wait_for(lambda: not list(repo.glob(".ingest/import-*")), "the import to end")
        if not snapshot.exists():
            break
        stack.slipway("cache", "rm", BIG)  # it was just done
    assert not snapshot.exists()
    assert on_disk(stack) == 0
    stack.slipway("cache", "import", BIG, str(target))
    assert contents(snapshot) == contents(target)
