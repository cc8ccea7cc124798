"""Lines for people who read the output of `docker build`: whole ones, none of which overwrites another."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slipway_service.fault import Fault
from slipway_service.values import rounded_size
from slipway_service.weights.names import Commit
from slipway_service.weights.selection import SelectedFiles

from slipway_registry.jobs.records import Download, Progress, State
from slipway_registry.preload.targets import Target

if TYPE_CHECKING:
    from slipway_registry.preload.fill import Filled

LINE_INTERVAL = 5.0
"""Seconds between two lines about the same download: an hour's are some 70 kB, and BuildKit cuts a step at 2 MiB."""


@dataclass(slots=True)
class Report:
    """Writes a line for each thing worth knowing.

    Args:
        write: takes a line, without its end.
        now: monotonic time, in seconds.
    """

    write: Callable[[str], None]
    now: Callable[[], float]
    _names: dict[str, str] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)
    _states: dict[str, State] = field(default_factory=dict)

    def resolved(self, target: Target, commit: Commit, selected: SelectedFiles) -> None:
        """It is known what is to be there."""
        files = len(selected.files)
        facts = [commit, selected.variant, f"{files} file{'s' * (files != 1)}", rounded_size(selected.size_bytes)]
        self._line(target.name, ", ".join(filter(None, facts)))
        if selected.explanation:
            self._line(target.name, selected.explanation)

    def waits(self, target: Target, fault: Fault, pause: float) -> None:
        """The Hub is away before anything has begun."""
        self._line(target.name, f"{fault}; trying again in {_time(pause)}")

    def names(self, download: Download, target: Target) -> None:
        """What a download is called."""
        self._names.setdefault(download.id, target.name)

    def download(self, download: Download) -> None:
        """A download as it is now: a line if its state says something new, or if it is time for one."""
        name = self._names.get(download.id, download.repo)
        new = self._states.get(download.id) is not download.state
        self._states[download.id] = download.state
        if download.state is State.BACKING_OFF and new and download.failure:
            self._line(name, f"{download.failure.reason}: {download.failure.text}; the download goes on later")
        elif download.state in (State.RUNNING, State.VERIFYING) and self._is_time(download.id):
            self._line(name, _figures(download.progress, verifying=download.state is State.VERIFYING))

    def filled(self, filled: "Filled", seconds: float) -> None:
        """A target is there."""
        fetched = f"{rounded_size(filled.fetched_bytes)} fetched" if filled.fetched_bytes else "nothing to fetch"
        kept = ", kept" if filled.kept else ""
        self._line(filled.target.name, f"there after {_time(seconds)}, {fetched}{kept}")

    def failed(self, target: Target, fault: Fault) -> None:
        """A target cannot be had."""
        link = f" {fault.link.description}: {fault.link.url}" if fault.link else ""
        self._line(target.name, f"{fault}{link}")

    def _is_time(self, download_id: str) -> bool:
        now = self.now()
        if now - self._said.setdefault(download_id, now) < LINE_INTERVAL:
            return False
        self._said[download_id] = now
        return True

    def _line(self, name: str, text: str) -> None:
        self.write(f"{name}: {text}")


def _figures(progress: Progress, *, verifying: bool) -> str:
    done, total = progress.done_bytes, progress.total_bytes
    share = f"{done * 100 // total if total else 100} %"
    parts = [f"{share}, {rounded_size(done)} of {rounded_size(total)}"]
    if verifying:
        parts.append("verifying")
    else:
        if progress.bytes_per_second:
            parts.append(f"{rounded_size(round(progress.bytes_per_second))}/s")
        if progress.eta_seconds is not None:
            parts.append(f"{_time(progress.eta_seconds)} left")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(found: Sequence["Filled"]) -> list[str]:
    """The summary for people: name, commit, bytes and path, in columns."""
    rows = [(it.target.name, it.commit, rounded_size(it.size_bytes), str(it.path)) for it in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"{name:<{widths[0]}}  {commit}  {size:>{widths[2]}}  {path}" for name, commit, size, path in rows]


def json_line(filled: "Filled") -> str:
    """The summary of one target for programs; sizes in bytes."""
    return json.dumps(
        {
            "name": filled.target.name,
            "repo_id": filled.target.repo,
            "revision": filled.target.revision,
            "commit": filled.commit,
            "variant": filled.variant,
            "files": filled.files,
            "bytes": filled.size_bytes,
            "fetched_bytes": filled.fetched_bytes,
            "path": str(filled.path),
            "kept": filled.kept,
        }
    )
