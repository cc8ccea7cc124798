"""How much of a model's files processes have read, as the kernel sees it.

For backends that say nothing while they load. Of each file the most counts that any process reached: the position of
an open descriptor (read(2) in order), or the resident pages of its mappings (mmap). A file that is closed again keeps
what was seen. This is coarse: a loader that jumps or prefetches looks further than it is, one that reads with pread(2)
or through the page cache of another looks as if it did nothing.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway_runner.progress.signals import Bytes, Shards, Signal, Source

READ_SHARE = 0.95
"""Of a file that counts as all of it: headers, padding and the odd page are never touched."""

SCAN_SECONDS = 2.0
"""Between two scans, at least."""

COST_SHARE = 0.01
"""Of one core that scanning may cost. The kernel walks page tables for every mapping: for 100 GB this takes a while."""

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ +(.*)$")


def next_scan(last_scan_seconds: float) -> float:
    """Return the seconds to wait after a scan that took `last_scan_seconds`."""
    return max(SCAN_SECONDS, last_scan_seconds / COST_SHARE)


@dataclass(slots=True)
class _File:
    path: str
    size: int
    read: int = 0


class FileWatch:
    """Watches how far a set of files was read by a set of processes.

    Args:
        files: the weights, in the order in which they are shown; symbolic links (a snapshot's) are followed.
        proc: where procfs is mounted.
    """

    def __init__(self, files: Sequence[Path], proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._names = [path.name for path in files]
        self._by_path = {str(real): _File(str(real), _size(real)) for real in map(Path.resolve, files)}
        self._files = [self._by_path[str(path.resolve())] for path in files]  # equal files share their blob
        self._total = sum(file.size for file in self._files)
        self._current = ""

    def scan(self, pids: Iterable[int]) -> tuple[Signal, ...]:
        """Look once (blocking, milliseconds; see `next_scan`). Returns nothing until something was read."""
        before = [file.read for file in self._files]
        for pid in pids:
            for file, read in (*self._positions(pid), *self._resident(pid)):
                file.read = max(file.read, min(read, file.size))
        grown = [name for name, was, file in zip(self._names, before, self._files, strict=True) if file.read > was]
        self._current = grown[-1] if grown else self._current
        return self._signals()

    def _signals(self) -> tuple[Signal, ...]:
        done = sum(file.read for file in self._files)
        if not done:
            return ()
        size = Bytes(done, self._total, Source.KERNEL)
        if len(self._files) == 1:
            return (size,)
        full = sum(0 < READ_SHARE * file.size <= file.read for file in self._files)
        return (size, Shards(full, len(self._files), self._current, Source.KERNEL))

    def _positions(self, pid: int) -> Iterator[tuple[_File, int]]:
        """Yield the files that a process has open, and where it stands in them."""
        folder = self._proc / str(pid)
        with suppress(OSError):  # it may be gone, or not ours
            for fd in os.listdir(folder / "fd"):
                with suppress(OSError, ValueError, IndexError):
                    file = self._by_path.get(os.readlink(folder / "fd" / fd))
                    if file:
                        yield file, int((folder / "fdinfo" / fd).read_text().split(maxsplit=2)[1])

    def _resident(self, pid: int) -> Iterator[tuple[_File, int]]:
        """Yield the files that a process has mapped, and how many bytes of each are in memory."""
        folder = self._proc / str(pid)
        with suppress(OSError):
            maps = (folder / "maps").read_text()
            if not any(path in maps for path in self._by_path):
                return  # reading smaps walks page tables; maps does not
            resident: dict[str, int] = {}
            for path, size in _mappings((folder / "smaps").read_text().splitlines()):
                resident[path] = resident.get(path, 0) + size
            yield from ((file, resident[path]) for path, file in self._by_path.items() if path in resident)


def _mappings(smaps: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield path and resident bytes of each mapping; proc_pid_smaps(5)."""
    path = ""
    for line in smaps:
        if found := _MAPPING.match(line):
            path = found[1]
        elif line.startswith("Rss:") and path:
            yield path, int(line.split()[1]) * 1024


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the backend will say what is wrong with it
        return 0
