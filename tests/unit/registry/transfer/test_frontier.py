import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway_registry.transfer.frontier import Entry, Frontier

BOOT = uuid.UUID(int=1)
BLOCK = 16


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "frontier", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def content(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


def fill(frontier: Frontier, data: bytes, block: int, filled: int) -> None:
    start = block * frontier.block_bytes
    frontier.record(Entry(block, filled, crc32c(data[start : start + filled])))


def test_a_new_one_lacks_everything(fd: int) -> None:
    frontier = Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    assert (frontier.done, frontier.contiguous, frontier.gaps()) == (0, 0, [(0, 40)])


def test_what_was_recorded_is_loaded(fd: int) -> None:
    data = content(40)
    frontier = Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    fill(frontier, data, 0, 16)
    fill(frontier, data, 1, 5)
    fill(frontier, data, 2, 8)
    loaded = Frontier.load(fd, 40)
    assert loaded is not None
    assert (loaded.done, loaded.contiguous, loaded.gaps(), loaded.boot) == (29, 21, [(21, 32)], BOOT)
    assert loaded.crcs() == frontier.crcs()


def test_the_last_block_is_full_at_the_end_of_the_file(fd: int) -> None:
    frontier = Frontier.create(fd, 20, boot=BOOT, block_bytes=BLOCK)
    fill(frontier, content(20), 0, 16)
    fill(frontier, content(20), 1, 4)
    assert (frontier.contiguous, frontier.gaps()) == (20, [])


def test_an_empty_file_lacks_nothing(fd: int) -> None:
    frontier = Frontier.create(fd, 0, boot=BOOT, block_bytes=BLOCK)
    assert (frontier.done, frontier.contiguous, frontier.gaps()) == (0, 0, [])


def test_recording_never_goes_back(fd: int) -> None:
    frontier = Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    fill(frontier, content(40), 0, 10)
    frontier.record(Entry(0, 4, 7))
    assert frontier.entry(0) == (10, crc32c(content(10)))


def test_several_blocks_recorded_at_once_leave_those_between_as_they_are(fd: int) -> None:
    frontier = Frontier.create(fd, 5 * BLOCK, boot=BOOT, block_bytes=BLOCK)
    frontier.record(Entry(2, 7, 22))
    frontier.record(Entry(4, BLOCK, 44), Entry(1, 3, 11), Entry(2, 6, 66))
    loaded = Frontier.load(fd, 5 * BLOCK)
    assert loaded is not None
    entries = [loaded.entry(block) for block in range(5)]
    assert entries == [(0, 0), (3, 11), (7, 22), (0, 0), (BLOCK, 44)]
    assert (frontier.done, loaded.done) == (26, 26)
    assert frontier.crcs() == loaded.crcs()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda fd: os.ftruncate(fd, 70), id="cut off"),
        pytest.param(lambda fd: os.pwrite(fd, b"x", 0), id="another magic"),
        pytest.param(lambda fd: os.pwrite(fd, b"\xff" * 4, 64), id="more filled than a block has"),
        pytest.param(lambda fd: os.ftruncate(fd, 0), id="empty"),
    ],
)
def test_a_spoilt_file_is_not_loaded(fd: int, spoil: object) -> None:
    Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    spoil(fd)  # type: ignore[operator]
    assert Frontier.load(fd, 40) is None


def test_a_frontier_of_another_size_is_not_loaded(fd: int) -> None:
    Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    assert Frontier.load(fd, 41) is None


def test_after_a_reboot_only_what_has_its_crc_is_kept(fd: int) -> None:
    data = bytearray(content(64))
    frontier = Frontier.create(fd, 64, boot=BOOT, block_bytes=BLOCK)
    for block, filled in enumerate((16, 16, 9, 16)):
        fill(frontier, bytes(data), block, filled)
    data[16:32] = bytes(16)  # pages that never reached the disk

    other = uuid.UUID(int=2)
    loaded = Frontier.load(fd, 64)
    assert loaded is not None
    assert loaded.confirm(lambda offset, length: bytes(data[offset : offset + length]), other) == 16
    assert loaded.gaps() == [(16, 32), (41, 48)]
    again = Frontier.load(fd, 64)
    assert again is not None
    assert (again.boot, again.gaps()) == (other, loaded.gaps())


def test_forgetting_is_remembered(fd: int) -> None:
    frontier = Frontier.create(fd, 40, boot=BOOT, block_bytes=BLOCK)
    for block, filled in enumerate((16, 16, 8)):
        fill(frontier, content(40), block, filled)
    frontier.forget([1])
    assert (frontier.done, frontier.contiguous) == (24, 16)
    frontier.forget()
    loaded = Frontier.load(fd, 40)
    assert loaded is not None
    assert loaded.gaps() == [(0, 40)]


@settings(max_examples=60)
@given(size=st.integers(0, 200), fills=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 16)), max_size=40))
def test_gaps_and_done_always_add_up(
    tmp_path_factory: pytest.TempPathFactory, size: int, fills: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("frontier") / "file"
    opened = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        frontier = Frontier.create(opened, size, boot=BOOT, block_bytes=BLOCK)
        for block, filled in fills:
            if block * BLOCK < size:
                fill(frontier, content(size), block, min(filled, size - block * BLOCK))
        gaps = frontier.gaps()
        assert frontier.done + sum(end - start for start, end in gaps) == size
        assert all(start < end for start, end in gaps)
        assert all(before[1] < after[0] or after[0] % BLOCK for before, after in itertools.pairwise(gaps))
        assert frontier.contiguous == (gaps[0][0] if gaps else size)
        loaded = Frontier.load(opened, size)
        assert loaded is not None
        assert (loaded.gaps(), loaded.done, loaded.contiguous) == (gaps, frontier.done, frontier.contiguous)
    finally:
        os.close(opened)
