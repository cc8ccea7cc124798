"""The gateway's own API keys: those that clients have to show."""

import hmac
import os
from pathlib import Path

import structlog

log = structlog.stdlib.get_logger("slipway.gateway")


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file: one on each line, blanks around it do not count.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none in it.
    """
    keys = tuple(line.strip() for line in path.read_bytes().splitlines() if line.strip())
    if not keys:
        raise ValueError("no key is in it")
    return keys


class ApiKeys:
    """Who may come in. The file is read again when it changes, so keys are replaced without a restart.

    Args:
        path: the file; None lets everybody in. While it cannot be read, nobody comes in.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: object = None
        self._keys: tuple[bytes, ...] = ()

    def admit(self, authorization: str) -> bool:
        """Whether the value of an `Authorization` header carries one of the keys (RFC 6750, 2.1)."""
        if self._path is None:
            return True
        self._refresh(self._path)
        scheme, _, key = authorization.partition(" ")
        shown = key.strip().encode(errors="surrogateescape")
        return scheme.lower() == "bearer" and any(hmac.compare_digest(shown, one) for one in self._keys)

    def _refresh(self, path: Path) -> None:
        try:
            status = os.stat(path)
            seen: object = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen != self._seen:
                self._keys = read_keys(path)
        except (OSError, ValueError) as error:
            seen = str(error)
            if seen != self._seen:
                log.error("nobody is let in: the file of the API keys is no use", path=str(path), error=seen)
            self._keys = ()
        self._seen = seen
