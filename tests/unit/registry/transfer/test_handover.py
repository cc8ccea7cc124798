"""Who has which buffer when."""

import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.handover import BUFFER_BYTES, LEAST_BUFFER_BYTES, MOST_LENT, Handover, Piece
from slipway_registry.transfer.hashing import OneCore, follow
from slipway_registry.transfer.partial import Partial

MIB = 1 << 20


class File:
    """How much of it is there, and what connections hashed by themselves."""

    def __init__(self, *, busy: bool = False, least: int = 1) -> None:
        self.contiguous = 0
        self.busy = busy
        self.added: list[int] = []
        self.handover = Handover(1000, lambda: self.contiguous)
        self.handover.begin(lambda view: self.added.append(len(view)), lambda: self.busy, least=least)
        self._done: Piece | None = None

    def write(self, count: int) -> bool:
        """The next bytes come in a buffer; whether the hash's thread has it now."""
        view = self.handover.take(self.contiguous, Halt())[:count]
        lent = self.handover.offer(self.contiguous, view)
        self.contiguous += count
        self.handover.grown()
        if not lent:
            self.handover.give_back(view)
        return lent

    def next(self) -> Piece | None:
        """What is to be hashed next; what was before is hashed."""
        self._done = self.handover.next(self._done, most=100, halt=Halt())
        return self._done


def span(piece: Piece | None) -> tuple[int, int, bool]:
    """Where it is, and whether it was lent."""
    assert piece
    return piece.start, piece.end, piece.view is not None


def waits(at: Handover, work: Callable[[], object]) -> threading.Thread:
    """Start what is to block, and return when it does; it ends with the test."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while not at._change._waiters:  # type: ignore[attr-defined]
        assert thread.is_alive()
        time.sleep(0.001)  # nothing tells that a thread has begun to wait
    return thread


def test_bytes_that_are_next_are_lent_in_order() -> None:
    file = File()
    assert (file.write(10), file.write(5)) == (True, True)
    assert [span(file.next()), span(file.next())] == [(0, 10, True), (10, 15, True)]


def test_bytes_behind_those_that_are_in_the_file_only_are_not_lent() -> None:
    file = File()
    file.contiguous = 50  # an earlier process left them
    assert not file.write(10)
    assert span(file.next()) == (0, 60, False)
    assert file.write(10)
    assert span(file.next()) == (60, 70, True)


def test_what_is_read_from_the_file_at_a_time_is_bounded() -> None:
    file = File()
    file.contiguous = 250
    assert [span(file.next()) for _ in range(3)] == [(0, 100, False), (100, 200, False), (200, 250, False)]


def test_the_end_of_the_file_is_the_end() -> None:
    file = File(least=600)
    file.contiguous = 950
    pieces = [span(file.next()) for _ in range(4)]  # 600 bytes at least are worth it, here and at the end
    waiting = waits(file.handover, file.next)
    file.contiguous = 1000
    file.handover.grown()
    waiting.join(10)
    assert pieces[-1] == (300, 400, False)
    assert span(file._done) == (400, 500, False)
    for _ in range(5):
        file.next()
    assert file.next() is None


@pytest.mark.parametrize("least", [1, 600])
def test_a_connection_hashes_by_itself_where_others_keep_the_cores_busy(least: int) -> None:
    file = File(busy=True, least=least)
    assert file.write(10)  # the thread does not sleep before these bytes
    assert span(file.next()) == (0, 10, True)
    ended: list[Piece | None] = []
    waiting = waits(file.handover, lambda: ended.append(file.next()))
    assert [file.write(100) for _ in range(9)] == [False] * 9
    assert file.added == [100] * 9
    assert file.handover._change._waiters  # type: ignore[attr-defined]  # it is not woken for what is hashed
    assert not file.write(90)
    waiting.join(10)
    assert ended == [None]
    assert sum(file.added) == 990


def test_what_comes_out_of_order_meanwhile_is_read_back() -> None:
    file = File(busy=True)
    ended: list[Piece | None] = []
    waiting = waits(file.handover, lambda: ended.append(file.next()))
    assert not file.write(10)
    later = file.handover.take(20, Halt())
    assert not file.handover.offer(20, later[:10])  # another connection's, further on
    assert not file.write(10)
    file.contiguous += 10
    file.handover.grown()
    waiting.join(10)
    assert file.added == [10, 10]
    assert [span(one) for one in ended] == [(20, 30, False)]


def test_a_connection_waits_until_the_hash_has_caught_up() -> None:
    file = File()
    for _ in range(MOST_LENT):
        assert file.write(10)
    waiting = waits(file.handover, lambda: file.handover.take(file.contiguous, Halt()))
    file.next()
    file.next()  # the first is hashed
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_connection_with_bytes_for_later_does_not_wait() -> None:
    file = File()
    for _ in range(MOST_LENT):
        file.write(10)
    assert len(file.handover.take(file.contiguous + 1000, Halt())) == BUFFER_BYTES


def test_a_buffer_that_was_hashed_is_used_again() -> None:
    file = File()
    file.write(10)
    lent = file.next()
    waiting = waits(file.handover, file.next)
    again = file.handover.take(10, Halt())
    assert lent is not None
    assert lent.view is not None
    assert again.obj is lent.view.obj
    file.write(1)
    waiting.join(10)


def test_nobody_waits_for_a_hash_that_has_ended() -> None:
    file = File()
    for _ in range(MOST_LENT):
        file.write(10)
    waiting = waits(file.handover, lambda: file.handover.take(file.contiguous, Halt()))
    file.handover.end()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not file.write(10)


def test_a_halt_ends_both_waits() -> None:
    file, halt = File(), Halt()
    ended: list[str] = []

    def wait(name: str, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with pytest.raises(Halted):
                work()
            ended.append(name)

        return run

    hashing = waits(file.handover, wait("hash", lambda: file.handover.next(None, most=1, halt=halt)))
    other = File()
    for _ in range(MOST_LENT):
        other.write(1)
    connection = waits(other.handover, wait("connection", lambda: other.handover.take(other.contiguous, halt)))
    halt.set()
    hashing.join(10)
    connection.join(10)
    assert sorted(ended) == ["connection", "hash"]


def test_connections_that_share_a_link_have_smaller_buffers() -> None:
    handover = File().handover
    assert [len(handover.take(0, Halt(), sharing=count)) for count in (1, 2, 8)] == [
        BUFFER_BYTES,
        BUFFER_BYTES // 2,
        LEAST_BUFFER_BYTES,
    ]


@pytest.mark.timeout(600)  # it hashes and writes a gigabyte or two
@given(
    cuts=st.lists(st.integers(1, 7 * MIB), max_size=8),
    order=st.randoms(use_true_random=False),
    connections=st.integers(1, 3),
    busy=st.booleans(),
)
def test_the_hash_is_that_of_the_file_however_it_came(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], order: random.Random, connections: int, busy: bool
) -> None:
    size = 8 * MIB
    data = memoryview(hashlib.shake_128(str(cuts).encode()).digest(size))
    blocks = sorted({0, size, *(cut // MIB * MIB for cut in cuts)})
    parts = list(pairwise(blocks))
    order.shuffle(parts)
    etag = hashlib.sha256(data).hexdigest()
    lock = threading.Lock()

    def connect() -> None:
        while True:
            with lock:
                if not parts:
                    return
                start, end = parts.pop()
            while start < end:
                buffer = partial.handover.take(start, Halt())
                count = min(end - start, MIB * 3 // 2)
                buffer[:count] = data[start : start + count]
                if not partial.write(start, buffer[:count], lend=True):
                    partial.handover.give_back(buffer)
                start += count

    core = OneCore()
    with (
        tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as directory,
        Partial.open(Path(directory) / "p", size) as partial,
        core.following() if busy else nullcontext(),
    ):
        crew = [threading.Thread(target=connect, daemon=True) for _ in range(connections)]
        for thread in crew:
            thread.start()
        assert follow(partial, etag, core, Halt()) == etag
        for thread in crew:
            thread.join(10)
        assert partial.read(0, size) == bytes(data)
        assert partial.frontier.damaged(partial.read) == []
