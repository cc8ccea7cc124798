"""What can go wrong in a transfer, sorted by what to do about it.

Exception
├── Halted        (halt.py) told to stop; nothing is wrong
├── Setback       worth another try, after `retry_after` seconds where the other side said so
│   └── Away      the Hub is unreachable, overloaded or limits us; costs no try
├── Vanished      the partial was deleted under us (`hf cache rm`): begin the blob again
├── Mismatch      the bytes do not have the hash that names them
├── DiskFull      no space, though it had been asked for: wait for space
└── Fault         (slipway_service) permanent; a reason that callers see
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from slipway_service.fault import Fault, Precondition, Reason

# EFBIG is what a file size limit answers; for us it is a disk that takes no more.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Setback(Exception):
    """A failure that another try may cure.

    Args:
        text: what happened, for people; no URL queries (signatures are secrets).
        reason: what callers see if tries run out.
        retry_after: seconds that the other side asked us to wait.
    """

    def __init__(self, text: str, *, reason: Reason = Reason.TRANSFER_FAILED, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason
        self.retry_after = retry_after


class Away(Setback):
    """The Hub (or its CDN) cannot be reached, fails, or limits our rate."""


class Vanished(Exception):
    """Someone removed the partial while it was written."""


class Mismatch(Exception):
    """All bytes are there and their hash is another than the Hub stated."""

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(f"{path}: the Hub states {expected}, the bytes have {actual}")
        self.path = path
        self.expected = expected
        self.actual = actual


class DiskFull(Exception):
    """The file system has no room for more.

    Args:
        text: what happened, for people.
        path: the file or directory that there is no room for, where that is known.
    """

    def __init__(self, text: str, *, path: str = "") -> None:
        super().__init__(text)
        self.path = path

    def fault(self, then: str) -> Fault:
        """What callers are told; `then` says what becomes of the work."""
        text = f"{self}. {then}"
        return Fault(Reason.DISK_FULL, text, preconditions=(Precondition("DISK", self.path, text),))


@contextlib.contextmanager
def disk_errors(what: object) -> Iterator[None]:
    """Turn an OSError of the body into DiskFull or Fault(DISK_FAULT) that names `what` and the errno."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"{what}: {os.strerror(error.errno)}", path=str(what)) from error
        code = errno.errorcode.get(error.errno or 0, "unknown error")
        raise Fault(
            Reason.DISK_FAULT,
            f"{code} at {error.filename or what}: {error.strerror}",
            facts={"path": str(error.filename or what), "errno": code},
        ) from error


def check_cache(hub: Path) -> None:
    """Only a start makes the hub cache: where it has gone a mount may have, and nothing should take its place.

    Raises:
        Fault: DISK_FAULT, it cannot be reached.
    """
    try:
        os.stat(hub)
    except OSError as error:
        raise Fault(
            Reason.DISK_FAULT,
            f"The cache {hub} cannot be reached: {error.strerror}. If it was on a mount, mount it again; "
            "if it was deleted, restart the registry, which makes it anew.",
            facts={"path": str(hub), "errno": errno.errorcode.get(error.errno or 0, "unknown error")},
        ) from None
