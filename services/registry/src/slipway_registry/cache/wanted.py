"""What downloads under way count on, so that nobody deletes it below them."""

from slipway_service.weights.names import RepoId

from slipway_registry.cache.records import Key
from slipway_registry.jobs.records import State
from slipway_registry.jobs.requests import chosen
from slipway_registry.jobs.store import Store


class Wanted:
    """Asks the store, which knows every download that is not over."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def blobs(self, repo: RepoId) -> frozenset[str]:
        """Blobs of the repository that live downloads select, also those that are paused."""
        found: set[str] = set()
        for download in self._store.live():
            if download.repo == repo:
                paths, listing = self._store.files(download.id)
                found.update(file.blob_id for file in chosen(listing, paths))
        return frozenset(found)

    def downloading(self) -> frozenset[Key]:
        """Snapshots that a download which is not paused fills."""
        return frozenset((it.repo, it.commit) for it in self._store.live() if it.state is not State.PAUSED)
