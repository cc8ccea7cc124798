"""`slipway cache …` and `uninstall` as a person types them, and what is seen of them."""

import json
import os
import subprocess
from pathlib import Path

from slipway_client.sync import SyncRegistry

from tests.e2e.stack import BIN, Result, Stack
from tests.hub.emulator import HubEmulator

MIB = 1 << 20
CHAT = "org/chat-1.5B-GGUF"
BIG = "org/big"
COPY = "org/copy"


def another_commit(hub: HubEmulator) -> str:
    """Something new in CHAT, in a file that is as long as before; how to name it (the registry caches branches)."""
    chat = hub.catalogue.repos[CHAT]
    return f"{CHAT}@{chat.commit({'README.md': f'read {len(chat.commits):02}'}, branch='other')}"


def waits_for_a_release(stack: Stack) -> bool:
    """Whether a holder is asked to let go."""
    with SyncRegistry.connect(stack.registry.address) as registry:
        return any(pin.release_requested for pin in registry.list_pins())


def pulled(stack: Stack, repo: str = CHAT, *options: str) -> Path:
    """Downloads; the snapshot's directory."""
    last = stack.slipway("--json", "pull", repo, *(options or ("--all",))).lines[-1]
    assert last["state"] == "DOWNLOAD_STATE_SUCCEEDED"
    return stack.hub_cache / str(last["snapshotPath"])


def on_disk(stack: Stack) -> int:
    """Bytes below all blobs, by inode."""
    files = [path.stat() for path in stack.hub_cache.glob("models--*/blobs/*")]
    return sum({status.st_ino: status.st_size for status in files}.values())


def refused(stack: Stack, code: int, reason: str, *arguments: str) -> str:
    """Ends with this code and reason, in one line of JSON; what it says and advises."""
    ended = stack.slipway("--json", *arguments, check=False)
    (line,) = ended.err.splitlines()
    error = json.loads(line)["error"]
    assert (ended.code, error["exitCode"], error["reason"]) == (code, code, reason)
    return "\n".join([error["message"], *error.get("hints", [])])


def told(stack: Stack, code: int, *arguments: str) -> Result:
    """What a person sees of a command that ends with this code."""
    ended = stack.slipway(*arguments, check=False)
    assert ended.code == code
    return ended


def start(stack: Stack, *arguments: str) -> "subprocess.Popen[str]":
    """The command, running."""
    environment = {
        **stack.environment,
        "SLIPWAY_REGISTRY": stack.registry.address,
        "SLIPWAY_RUNNER": stack.runner.address,
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [BIN / "slipway", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rot(file: Path, data: bytes) -> None:
    """Other bytes on the disk, and nothing that tells of a change."""
    before = file.stat()
    file.resolve().write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
