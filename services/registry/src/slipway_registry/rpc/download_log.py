"""What happens to downloads, as entries of the event log that WatchDownloads serves; durable, for the store has it."""

from collections.abc import Callable

from slipway.common.v1 import watch_pb2
from slipway.registry.v1 import download_pb2
from slipway_service import wire
from slipway_service.eventlog import Entry, EventLog

from slipway_registry.jobs.records import Download, Progress, State
from slipway_registry.jobs.store import Entry as Stored
from slipway_registry.jobs.store import Store
from slipway_registry.rpc import to_proto

_PAGE = 500


class DownloadLog:
    """The listener of the scheduler: each transition is serialised once and appended.

    Args:
        store: what the log begins with, so that watchers of an earlier process are replayed what they missed.
        retention: seconds after which ended downloads are forgotten.

    Attributes:
        on_success: told of each download that has filled its snapshot; must not block.
    """

    def __init__(self, store: Store, *, retention: float) -> None:
        self.on_success: Callable[[Download], None] = lambda _download: None
        self._retention = retention
        head = store.head()
        self.log = EventLog(
            head.epoch,
            revision=head.revision,
            state=[self._entry_of(download) for download in _everything(store)],
            entries=[self._entry(stored) for stored in store.history()],
        )

    def transition(self, entry: Stored) -> None:
        """A download changed its state, was created, or is gone."""
        self.log.apply(self._entry(entry))
        if entry.download is not None and entry.download.state is State.SUCCEEDED:
            self.on_success(entry.download)

    def progress(self, download: Download, progress: Progress) -> None:
        """New figures of a running download."""
        figures = to_proto.progress(progress, attempt=download.attempt, hash_failures=download.mismatches)
        update = download_pb2.DownloadProgressUpdate(name=download.name, uid=download.id, progress=figures)
        self.log.progress(download.name, wire.event_field(download_pb2.DownloadEvent(progress=update)))

    def _entry(self, stored: Stored) -> Entry:
        if stored.download is not None:
            return self._entry_of(stored.download, revision=stored.revision)
        deleted = watch_pb2.Deleted(name=stored.name, uid=stored.uid)
        event = wire.event_field(download_pb2.DownloadEvent(deleted=deleted))
        return Entry(revision=stored.revision, key=stored.name, event=event, done=True, deleted=True)

    def _entry_of(self, download: Download, *, revision: int | None = None) -> Entry:
        shown = to_proto.download(download, retention=self._retention)
        return Entry(
            revision=download.log_revision if revision is None else revision,
            key=download.name,
            event=wire.event_field(download_pb2.DownloadEvent(download=shown)),
            done=download.state.terminal,
        )


def _everything(store: Store) -> list[Download]:
    downloads: list[Download] = []
    while page := store.page(limit=_PAGE, after=downloads[-1].id if downloads else None):
        downloads += page
    return downloads
