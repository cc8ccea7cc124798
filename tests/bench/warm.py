"""Memory that every contender finds as warm as the one before: used before, and still this machine's."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE_BYTES = 8 << 20
# Hypervisors take back free blocks of 2 MiB or more (Linux' page_reporting_order, pageblock_order by default).
_KEPT_EVERY = 1 << 20
_PAGE_BYTES = mmap.PAGESIZE


@contextmanager
def warm_pages(count: int) -> Iterator[None]:
    """Have `count` bytes of free memory that has been used, and that the hypervisor leaves to this machine meanwhile.

    A virtual machine pays for the first use of a page. With free page reporting it pays again some two seconds after
    the page was freed (tmpfs was written at half the speed then): whoever began at once would be faster than whoever
    takes a second to start. One page of each MiB stays in use here, so that no free block is large enough to be taken.
    """
    with mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        piece = bytes(_PIECE_BYTES)
        for start in range(0, count, _PIECE_BYTES):
            memory[start : start + _PIECE_BYTES] = piece[: count - start]
        for start in range(0, count - _KEPT_EVERY, _KEPT_EVERY):
            memory.madvise(mmap.MADV_DONTNEED, start + _PAGE_BYTES, _KEPT_EVERY - _PAGE_BYTES)
        yield


def read(path: Path) -> None:
    """Have the file in the page cache."""
    piece = memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass
