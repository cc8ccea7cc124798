"""One registry per cache: a marker that says whose it is, where cache scans do not look.

A lock on the marker settles it wherever locks work. Where they do not (NFS without a lock daemon), the owner's
heartbeat does: the marker's modification time, compared with that of a file just written, so that only the server's
clock counts.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway_registry.cache.files import open_lock, replace_file
from slipway_registry.cache.layout import Modes

MARKER = "slipway-owner.json"
LOCK = "slipway-owner.lock"
# The owner says that it lives this often (seconds); after three silences in a row its cache may be taken over.
HEARTBEAT = 60.0
SILENCES = 3


class CacheTakenError(Exception):
    """Another registry owns the cache; the message says which."""


@dataclass(frozen=True, slots=True)
class CacheOwner:
    """The cache is ours. `cache_id` names the cache for ever, whoever owns it."""

    cache_id: str

    @classmethod
    @contextmanager
    def taking(cls, hub: Path, registry_id: str, modes: Modes) -> Iterator["CacheOwner"]:
        """Own the hub cache, which is created if it is not there, while the body runs.

        Args:
            registry_id: of the state directory; a registry that comes back owns its cache still.

        Raises:
            CacheTakenError.
        """
        locks = hub / ".locks"
        marker = locks / MARKER
        fd = open_lock(locks / LOCK, modes)
        try:
            _lock(fd, hub)
            found = _read(marker)
            owner = found.get("registry_id")
            if owner not in (None, registry_id) and found.get("host") != socket.gethostname() and _alive(marker):
                raise CacheTakenError(
                    f"{hub} belongs to the registry on {found.get('host')}; "
                    f"stop it, or wait {HEARTBEAT * SILENCES:.0f} s after it has gone"
                )
            cache_id = found.get("cache_id") or uuid.uuid4().hex
            mine = {"cache_id": cache_id, "registry_id": registry_id, "host": socket.gethostname()}
            if found == mine:
                os.utime(marker)  # needs no space: a registry comes back also on a full disk
            else:
                replace_file(marker, json.dumps(mine).encode(), staging=locks, modes=modes)
            try:
                with _heart(marker):
                    yield cls(cache_id)
            finally:
                with contextlib.suppress(OSError):  # then it is believed to live for a little longer
                    os.utime(marker, (0, 0))
        finally:
            os.close(fd)


def _lock(fd: int, hub: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CacheTakenError(f"{hub} is in use by another registry on this host or its file server") from None
    except OSError:
        pass  # no locks here: the heartbeat decides


def _read(marker: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(marker.read_text())
        if isinstance(found, dict):
            return {str(key): str(value) for key, value in found.items()}
    return {}


def _alive(marker: Path) -> bool:
    now = marker.with_name(f"slipway-now.{secrets.token_hex(4)}")
    now.touch()
    try:
        return now.stat().st_mtime - marker.stat().st_mtime < HEARTBEAT * SILENCES
    finally:
        now.unlink()


@contextmanager
def _heart(marker: Path) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(marker)

    thread = threading.Thread(target=beat, name="cache-owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
