"""A live download in this process."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from anyio import CancelScope

from slipway_registry.hub.credentials import Credential
from slipway_registry.jobs.records import Download, Progress
from slipway_registry.jobs.run import Run, at_rest


@dataclass(slots=True, eq=False)
class Job:
    """The download as last recorded, and its run, if one is at work (`scope`)."""

    download: Download
    credential: Callable[[], Credential]
    lacks_credential: bool = False  # it lives on a caller's token, which went with an earlier process
    scope: CancelScope | None = None
    run: Run | None = None
    publishing: bool = False
    away_from: float | None = None  # monotonic, which jumps of the clock and a suspended host leave alone
    away_looks: int = 0  # starts since then
    start_bytes: int = 0  # done at the last start: more means progress
    disk_fills: int = 0  # times in a row that the disk took nothing though it said that it had space
    disk_look_at: float = 0.0  # monotonic: while it waits for space, when to look again
    told: Progress | None = None  # the figures that the listener was given last

    def begin(self) -> None:
        """A run starts."""
        self.scope = CancelScope()

    def end(self, at: float) -> None:
        """The run is over, whatever its outcome; `at` is monotonic time."""
        if self.run:
            self.download = replace(self.download, progress=at_rest(self.run.progress(at)))
        self.scope, self.run, self.publishing = None, None, False

    def current(self, at: float) -> Download:
        """The download with its figures of this moment."""
        if self.run is None:
            return self.download
        return replace(self.download, progress=self.run.progress(at))
