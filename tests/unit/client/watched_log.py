"""A server's side of a watch, as the contract has it, small enough to be seen to be right.

It keeps every transition of every epoch, so that a test can hold what a watcher saw against what there was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from slipway.common.v1.watch_pb2 import Cursor, Deleted
from slipway.registry.v1.download_pb2 import Download, DownloadEvent, DownloadProgressUpdate, DownloadState
from slipway.registry.v1.download_service_pb2 import WatchDownloadsResponse


@dataclass
class WatchedLog:
    """Downloads and the log of their transitions; a transition's revision is also the download's etag."""

    epoch: int = 0
    history: dict[int, list[DownloadEvent]] = field(default_factory=lambda: {0: []})
    state: dict[str, Download] = field(default_factory=dict)
    compacted: int = 0
    """Transitions of this epoch that a replay can no longer give."""

    @property
    def head(self) -> int:
        return len(self.history[self.epoch])

    @property
    def cursor(self) -> Cursor:
        return Cursor(epoch=str(self.epoch), revision=self.head)

    def change(self, name: str, state: DownloadState.ValueType = DownloadState.DOWNLOAD_STATE_RUNNING) -> None:
        download = Download(name=name, uid=f"{name}@{self.epoch}.{self.head}")
        if name in self.state:
            download.CopyFrom(self.state[name])
        download.state = state
        download.etag = str(self.head + 1)
        download.ClearField("progress")
        self.state[name] = download
        self.history[self.epoch].append(DownloadEvent(download=download))

    def delete(self, name: str) -> None:
        if gone := self.state.pop(name, None):
            self.history[self.epoch].append(DownloadEvent(deleted=Deleted(name=name, uid=gone.uid)))

    def progress(self, name: str, done_bytes: int) -> None:
        if name in self.state:
            self.state[name].progress.done_bytes = done_bytes

    def compact(self) -> None:
        self.compacted = self.head

    def restart(self) -> None:
        """A new process with a new log, which knows the same downloads."""
        self.epoch += 1
        self.history[self.epoch] = []
        self.compacted = 0

    def initial(self, after: Cursor | None, size: int) -> Iterator[WatchDownloadsResponse]:
        """The batches up to `synced`, of `size` events each: a replay, or the state."""
        reset = after is not None and not self._can_replay(after)
        if after is None or reset:
            events = [DownloadEvent(download=download) for download in self.state.values()]
        else:
            events = [*self.history[self.epoch][after.revision :], *self.all_progress()]
        batches = [WatchDownloadsResponse(events=events[at : at + size]) for at in range(0, len(events), size)]
        batches = batches or [WatchDownloadsResponse()]
        batches[0].reset = reset
        batches[-1].synced = True
        batches[-1].cursor.CopyFrom(self.cursor)
        yield from batches

    def live(self, after: Cursor) -> WatchDownloadsResponse:
        """What has happened since."""
        events = [*self.history[self.epoch][after.revision :], *self.all_progress()]
        return WatchDownloadsResponse(events=events, cursor=self.cursor)

    def all_progress(self) -> list[DownloadEvent]:
        updates = [
            DownloadProgressUpdate(name=download.name, uid=download.uid, progress=download.progress)
            for download in self.state.values()
            if download.HasField("progress")
        ]
        return [DownloadEvent(progress=update) for update in updates]

    def _can_replay(self, after: Cursor) -> bool:
        return after.epoch == str(self.epoch) and self.compacted <= after.revision <= self.head
