"""What lies in `.ingest` for a moment, before a rename gives it its name: links, and snapshots being built."""

import contextlib
import os
import secrets
from pathlib import Path

from slipway_service.weights.cache_paths import INGEST, RepoPaths, repo_of_folder

from slipway_registry.cache.files import remove_tree

LINK = "link."
SNAPSHOT = "snapshot."


def staging_path(paths: RepoPaths, kind: str) -> Path:
    """A new path for one of that kind."""
    return paths.ingest / f"{kind}{secrets.token_hex(4)}"


def clear_staged(hub: Path) -> None:
    """Remove what a killed process had no time to name; what cannot be removed stays. Call it before any download."""
    for folder in filter(repo_of_folder, os.listdir(hub)):
        with contextlib.suppress(OSError):
            for name in os.listdir(hub / folder / INGEST):
                if name.startswith(LINK):
                    os.unlink(hub / folder / INGEST / name)
                elif name.startswith(SNAPSHOT):
                    remove_tree(hub / folder / INGEST / name)
