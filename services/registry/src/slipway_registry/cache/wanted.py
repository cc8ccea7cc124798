"""What downloads and imports under way count on, so that nobody deletes it below them."""

import contextlib
import threading
from collections.abc import Collection, Iterator

from slipway_service.weights.names import RepoId

from slipway_registry.cache.records import Key
from slipway_registry.jobs.records import State
from slipway_registry.jobs.requests import chosen
from slipway_registry.jobs.store import Store


class Wanted:
    """Asks the store, which knows every download that is not over. Safe for many threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._imports: list[tuple[Key, frozenset[str]]] = []

    @contextlib.contextmanager
    def importing(self, key: Key, blobs: Collection[str]) -> Iterator[None]:
        """These blobs are brought for a snapshot while the body runs."""
        entry = key, frozenset(blobs)
        with self._lock:
            self._imports.append(entry)
        try:
            yield
        finally:
            with self._lock:
                self._imports.remove(entry)

    def repos(self) -> frozenset[RepoId]:
        """Repositories of which anything is wanted."""
        return frozenset(it.repo for it in self._store.live()) | {repo for (repo, _), _ in self._importing()}

    def blobs(self, repo: RepoId) -> frozenset[str]:
        """Blobs of the repository that imports or live downloads select, also those that are paused."""
        found = {blob for (owner, _), blobs in self._importing() if owner == repo for blob in blobs}
        for download in self._store.live():
            if download.repo == repo:
                paths, listing = self._store.files(download.id)
                found.update(file.blob_id for file in chosen(listing, paths))
        return frozenset(found)

    def downloading(self) -> frozenset[Key]:
        """Snapshots that an import, or a download which is not paused, fills."""
        live = frozenset((it.repo, it.commit) for it in self._store.live() if it.state is not State.PAUSED)
        return live | {key for key, _ in self._importing()}

    def _importing(self) -> list[tuple[Key, frozenset[str]]]:
        with self._lock:
            return list(self._imports)
