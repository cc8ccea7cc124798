"""Disk space, promised before the first byte: all jobs draw on what is free beyond a reserve."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.values import rounded_size

from slipway_registry.transfer.errors import check_cache

# Left free for everything else on the file system: 1 GiB, or 2 % of a small one.
RESERVE_BYTES = 1 << 30
RESERVE_FRACTION = 0.02

_STAT_BLOCK = 512  # st_blocks counts these whatever the file system's block size is


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes that a blob will take, and the file that takes them."""

    size: int
    file: Path

    @property
    def outstanding(self) -> int:
        """Bytes promised and not allocated yet."""
        try:
            return max(0, self.size - self.file.stat().st_blocks * _STAT_BLOCK)
        except OSError:
            return self.size


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a claim was refused; all in bytes. `ever` tells whether it could fit if others made room."""

    needed: int
    free: int
    reserve: int
    path: str
    ever: bool

    def fault(self) -> Fault:
        """The shortage as callers see it."""
        text = (
            f"{rounded_size(self.needed)} are needed on {self.path}, {rounded_size(self.free)} are free "
            f"and {rounded_size(self.reserve)} of them reserved"
        )
        facts = {"needed": str(self.needed), "free": str(self.free), "reserve": str(self.reserve)}
        return Fault(Reason.DISK_FULL, text, facts=facts, preconditions=(Precondition("DISK", self.path, text),))


class DiskBudget:
    """Claims on the file system of `root`, the hub cache, keyed by blob, so that a shared blob counts once."""

    def __init__(self, root: Path, *, reserve: int | None = None) -> None:
        self._root = root
        self._reserve = reserve
        self._claims: dict[str, Claim] = {}
        self._users: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def claim(self, user: str, wanted: Mapping[str, Claim]) -> Shortage | None:
        """Promise `user` (a job) space for these blobs, all or none; None if it is promised.

        Raises:
            OSError: the file system does not answer.
            Fault: DISK_FAULT, `root` has gone.
        """
        check_cache(self._root)
        while True:
            with self._lock:
                claims = dict(self._claims)
            if shortage := self._shortage(wanted, claims):
                return shortage
            with self._lock:
                if self._claims == claims:  # else another job has claimed meanwhile
                    self._claims |= wanted
                    for etag in wanted:
                        self._users.setdefault(etag, set()).add(user)
                    return None

    def shortage(self, wanted: Mapping[str, Claim]) -> Shortage | None:
        """Why these would not be promised now; None if they would. Promises nothing; raises as `claim`."""
        check_cache(self._root)
        with self._lock:
            claims = dict(self._claims)
        return self._shortage(wanted, claims)

    @property
    def outstanding(self) -> int:
        """Bytes promised to jobs and not allocated yet."""
        with self._lock:
            claims = list(self._claims.values())
        return sum(claim.outstanding for claim in claims)

    def release(self, user: str) -> None:
        """The job ended, or was put off: what only it had claimed is free again."""
        with self._lock:
            for etag, users in list(self._users.items()):
                users.discard(user)
                if not users:
                    del self._users[etag], self._claims[etag]

    def reserve(self, total: int) -> int:
        """Bytes to leave free on a file system of `total` bytes."""
        return self._reserve if self._reserve is not None else min(RESERVE_BYTES, int(total * RESERVE_FRACTION))

    def _shortage(self, wanted: Mapping[str, Claim], claims: Mapping[str, Claim]) -> Shortage | None:
        """Outside the lock, which the event loop takes too: a file system may take its time to answer."""
        # Before what is free: what is allocated in between counts twice then, and not as nobody's.
        promised = sum(claim.outstanding for etag, claim in claims.items() if etag not in wanted)
        stat = os.statvfs(self._root)
        free, total = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
        reserve = self.reserve(total)
        needed = sum(claim.outstanding for claim in wanted.values())
        if not needed or needed <= free - promised - reserve:
            return None
        # A shortage counts what others were promised as not free.
        return Shortage(needed, max(0, free - promised), reserve, str(self._root), needed <= total - reserve)
