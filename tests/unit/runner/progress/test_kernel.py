"""How far files were read, seen from outside the process that reads them."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slipway_runner.progress.kernel import SCAN_SECONDS, FileWatch, next_scan
from slipway_runner.progress.signals import Bytes, Shards, Source

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE

# Does what it is told, a line at a time: read(2) so many bytes of a file, or map it and touch so many.
READER = """
import mmap, sys
held = {}
for line in sys.stdin:
    how, path, size = line.rsplit(maxsplit=2)
    if how == "read":
        if path not in held:
            held[path] = open(path, "rb", buffering=0)
        held[path].read(int(size))
    elif how == "map":
        with open(path, "rb") as file:
            held[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for at in range(0, int(size), mmap.PAGESIZE):
            held[path][at]
    else:
        held.pop(path).close()
    print(flush=True)
"""


class OtherProcess:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def do(self, how: str, path: Path, size: int = 0) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{how} {path} {size}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "\n"


@contextmanager
def started() -> Iterator[OtherProcess]:
    command = [sys.executable, "-c", READER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield OtherProcess(process)


@pytest.fixture
def reader() -> Iterator[OtherProcess]:
    with started() as one:
        yield one


@pytest.fixture
def weights(tmp_path: Path) -> list[Path]:
    """Two files as they lie in a snapshot: links to blobs."""
    links = []
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / "blobs").mkdir(exist_ok=True)
        (tmp_path / "blobs" / f"{name}.blob").write_bytes(bytes(SIZE))
        link = tmp_path / name
        link.symlink_to(tmp_path / "blobs" / f"{name}.blob")
        links.append(link)
    return links


def test_nothing_is_said_before_anything_is_read(reader: OtherProcess, weights: list[Path]) -> None:
    assert FileWatch(weights).scan([reader.pid]) == ()


def test_the_position_in_an_open_file_counts(reader: OtherProcess, weights: list[Path]) -> None:
    watch = FileWatch(weights[:1])
    reader.do("read", weights[0], 10_000)
    assert watch.scan([reader.pid]) == (Bytes(10_000, SIZE, Source.KERNEL),)
    reader.do("read", weights[0], SIZE)
    assert watch.scan([reader.pid]) == (Bytes(SIZE, SIZE, Source.KERNEL),)


def test_pages_that_were_touched_count(reader: OtherProcess, weights: list[Path]) -> None:
    watch = FileWatch(weights[:1])
    reader.do("map", weights[0], SIZE)
    assert watch.scan([reader.pid]) == (Bytes(SIZE, SIZE, Source.KERNEL),)


def test_files_are_counted_and_stay_counted_when_closed(reader: OtherProcess, weights: list[Path]) -> None:
    watch = FileWatch(weights)
    reader.do("map", weights[0], SIZE)
    assert watch.scan([reader.pid])[1] == Shards(1, 2, weights[0].name, Source.KERNEL)
    reader.do("close", weights[0])
    reader.do("read", weights[1], PAGE)
    assert watch.scan([reader.pid]) == (
        Bytes(SIZE + PAGE, 2 * SIZE, Source.KERNEL),
        Shards(1, 2, weights[1].name, Source.KERNEL),
    )


def test_equal_files_share_a_blob_and_count_as_two(reader: OtherProcess, weights: list[Path]) -> None:
    weights[1].unlink()
    weights[1].symlink_to(weights[0].resolve())
    reader.do("map", weights[1], SIZE)
    (done, shards) = FileWatch(weights).scan([reader.pid])
    assert done == Bytes(2 * SIZE, 2 * SIZE, Source.KERNEL)
    assert shards == Shards(2, 2, weights[1].name, Source.KERNEL)


def test_the_process_that_is_furthest_counts(reader: OtherProcess, weights: list[Path]) -> None:
    with started() as second:
        reader.do("read", weights[0], PAGE)
        second.do("read", weights[0], 3 * PAGE)
        (done, _) = FileWatch(weights).scan([reader.pid, second.pid])
    assert done == Bytes(3 * PAGE, 2 * SIZE, Source.KERNEL)


def test_a_process_that_is_gone_is_passed_over(weights: list[Path]) -> None:
    with started() as gone:
        pid = gone.pid
    assert FileWatch(weights).scan([pid, os.getpid()]) == ()


def test_scans_that_take_long_are_made_more_rarely() -> None:
    assert next_scan(0.001) == SCAN_SECONDS
    assert next_scan(0.3) == pytest.approx(30.0)
