"""Waiting for what a process has written."""

from pathlib import Path

import anyio


async def written(log: Path, lines: int) -> list[str]:
    """Wait until a file has so many lines; the kernel tells nobody when one grows."""
    with anyio.fail_after(60):
        while len(found := log.read_text().splitlines()) < lines:  # noqa: ASYNC110, ASYNC240
            await anyio.sleep(0.01)
    return found
