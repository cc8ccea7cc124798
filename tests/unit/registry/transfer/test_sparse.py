"""Bookkeeping of files beyond 32 bits, without their bytes."""

import os
import uuid
from pathlib import Path

import pytest
from slipway_registry.transfer import partial as partial_module
from slipway_registry.transfer.partial import DATA, FRONTIER, Partial
from slipway_registry.transfer.ranges import Ranges

SIZE = 60_000_000_123
MIB = 1 << 20


@pytest.fixture(autouse=True)
def holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the full length that take no space."""
    monkeypatch.setattr(partial_module, "allocate", os.ftruncate)


def test_a_60_gb_file_is_kept_book_of(tmp_path: Path) -> None:
    boot = uuid.UUID(int=1)
    middle, last = 50_000 * MIB, SIZE // MIB * MIB
    with Partial.open(tmp_path / "p", SIZE, boot=boot) as partial:
        partial.write(0, memoryview(b"first"))
        partial.write(middle, memoryview(bytes(MIB)))
        partial.write(last, memoryview(b"x" * (SIZE - last)))
        assert partial.frontier.contiguous == 5
    assert (tmp_path / "p" / DATA).stat().st_size == SIZE
    assert (tmp_path / "p" / FRONTIER).stat().st_size < MIB
    with Partial.open(tmp_path / "p", SIZE, boot=boot) as partial:
        assert partial.frontier.gaps() == [(5, middle), (middle + MIB, last)]
        assert partial.frontier.done == 5 + MIB + SIZE - last
        assert partial.read(last, 10**6) == b"x" * (SIZE - last)


def test_its_ranges_are_dealt_to_the_last_byte() -> None:
    ranges = Ranges([(5, SIZE)], connections=8)
    position = 5
    while span := ranges.take():
        assert span.position == position
        position += ranges.claim(span, SIZE)
        ranges.release(span)
    assert position == SIZE
