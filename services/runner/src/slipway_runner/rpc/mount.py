"""Whether this host sees what the registry has pinned: its cache may be mounted late, or not at all."""

import json
from pathlib import Path

import anyio
from anyio import to_thread
from slipway.registry.v1.snapshot_service_pb2 import PinSnapshotResponse
from slipway_service.fault import Fault, Reason

PATIENCE = 90.0
"""Seconds after which an NFS client shows new files: it keeps what it knows of directories for 60 at most (nfs(5))."""

INTERVAL = 1.0


async def wait_for_mount(hub: Path, pinned: PinSnapshotResponse, *, patience: float = PATIENCE) -> Path:
    """Wait until the files that were pinned are there, and return the directory that they lie in.

    Args:
        hub: where this host has mounted the hub cache that the registry fills.
        pinned: the registry's answer.
        patience: seconds that a mount of the same cache may be late.

    Raises:
        Fault: CACHE_NOT_SHARED, it is another cache, or they did not come.
    """
    root = hub / pinned.snapshot_path
    with anyio.move_on_after(patience):
        while not (seen := await to_thread.run_sync(_sees, root, pinned)):
            if await to_thread.run_sync(_cache_id, hub) != pinned.cache_id:
                break
            await anyio.sleep(INTERVAL)
        if seen:
            return root
    raise Fault(
        Reason.CACHE_NOT_SHARED,
        f"the registry has put {pinned.pin.repo_id} at {pinned.snapshot_path} of its cache, but {root} does not "
        "show it: mount the registry's cache on this host and set HF_HUB_CACHE to it",
    )


def _sees(root: Path, pinned: PinSnapshotResponse) -> bool:
    """Whether every pinned file is there with its size. A network file system may be late (ENOENT, ESTALE)."""
    try:
        return all((root / entry.path).stat().st_size == entry.size_bytes for entry in pinned.manifest)
    except OSError:
        return False


def _cache_id(hub: Path) -> str:
    """What the registry has written into its cache to tell it from others; empty where there is nothing."""
    try:
        return str(json.loads((hub / ".locks" / "slipway-owner.json").read_bytes())["cache_id"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
