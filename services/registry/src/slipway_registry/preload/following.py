"""What the engine tells of downloads, for those who wait for one."""

from collections.abc import Callable
from dataclasses import replace

import anyio

from slipway_registry.jobs.records import Download, Progress, State, WaitReason
from slipway_registry.jobs.store import Entry


class Following:
    """The engine's listener.

    Args:
        show: told of each transition, and of new figures between them.
    """

    def __init__(self, show: Callable[[Download], None]) -> None:
        self._show = show
        self._newest: dict[str, Download] = {}
        self._news = anyio.Event()

    def transition(self, entry: Entry) -> None:
        """A download has changed its state."""
        if entry.download is not None:
            self._newest[entry.uid] = entry.download
            self._show(entry.download)
            news, self._news = self._news, anyio.Event()
            news.set()

    def progress(self, download: Download, progress: Progress) -> None:
        """New figures of a running download."""
        self._show(replace(download, progress=progress))

    async def end_of(self, download: Download) -> Download:
        """The download once it is over, or waits for a disk that nobody makes room on."""
        while not _is_over(download):
            news = self._news
            download = self._newest.get(download.id, download)
            if not _is_over(download):
                await news.wait()
        return download


def _is_over(download: Download) -> bool:
    return download.state.terminal or (download.state is State.QUEUED and download.waiting_for is WaitReason.DISK)
