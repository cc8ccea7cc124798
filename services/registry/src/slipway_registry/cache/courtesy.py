"""huggingface_hub's own lock per blob, taken as a courtesy: whoever comes second finds the blob instead of fetching it.

Never waited for without bound, and nothing depends on it: locks are advisory, missing on some file systems, and held
for ever by a stopped process. What is right rests on hashes and renames.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from slipway_registry.cache.files import open_lock
from slipway_registry.cache.layout import Modes
from slipway_registry.transfer.halt import Halt

# Seconds: a native client that is nearly through with the blob saves us the work; a slow one does not keep us.
PATIENCE = 10.0
_LOOK_INTERVAL = 0.25


@contextlib.contextmanager
def holding_hub_lock(lock: Path, modes: Modes, halt: Halt) -> Iterator[None]:
    """Hold the lock file if that can be had within PATIENCE; go on without it if not.

    Raises:
        Halted.
    """
    try:
        fd = open_lock(lock, modes)
    except OSError:
        yield
        return
    try:
        looks = int(PATIENCE / _LOOK_INTERVAL)
        while not _lock(fd) and looks:
            halt.wait(_LOOK_INTERVAL)
            looks -= 1
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Whether waiting is over: the lock is ours, or there are no locks here."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
