"""Publishing and deleting of one repository exclude each other."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from slipway_service.weights.names import RepoId


class RepoLocks:
    """A lock per repository, between the threads of this process: one registry owns a cache."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[RepoId, threading.Lock] = {}
        self._users: Counter[RepoId] = Counter()

    @contextmanager
    def holding(self, repo: RepoId) -> Iterator[None]:
        """Wait until nobody else publishes or deletes in the repository."""
        with self._guard:
            lock = self._locks.setdefault(repo, threading.Lock())
            self._users[repo] += 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                self._users[repo] -= 1
                if not self._users[repo]:
                    del self._users[repo], self._locks[repo]
