import os
from pathlib import Path

import pytest
from slipway_runner.process.logfile import LogFile


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "log")


def test_nothing_yet(log: LogFile) -> None:
    assert log.size() == 0
    assert (log.read(0).data, log.read(0).next_offset) == (b"", 0)
    assert log.last_lines(5) == ()


def test_pieces_follow_each_other(log: LogFile) -> None:
    log.path.write_bytes(b"one\ntwo\n")
    first = log.read(0, 5)
    rest = log.read(first.next_offset)
    assert (first.data, rest.data, rest.next_offset) == (b"one\nt", b"wo\n", 8)
    assert log.read(8).data == b""
    assert log.read(100).next_offset == 100


def test_trimming_moves_no_offset(log: LogFile) -> None:
    lines = b"".join(b"%07d\n" % n for n in range(100_000))
    log.path.write_bytes(lines)
    before = log.path.stat().st_blocks
    assert log.trim(100_000)
    assert log.size() == len(lines)
    assert log.path.stat().st_blocks < before / 4
    piece = log.read(0, 1 << 20)
    assert len(lines) - 120_000 < piece.offset <= len(lines) - 100_000
    assert piece.data == lines[piece.offset :]
    with log.path.open("ab") as file:
        file.write(b"after\n")
    assert log.read(len(lines)).data == b"after\n"


def test_a_small_log_is_not_trimmed(log: LogFile) -> None:
    log.path.write_bytes(b"x" * 1000)
    assert log.trim(1000)
    assert log.read(0).data == b"x" * 1000


def test_a_file_system_that_cannot_leaves_the_log_as_it_is(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes
    import errno

    class Libc:
        def fallocate(self, *_: object) -> int:
            ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    log.path.write_bytes(b"x" * 100_000)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    assert not log.trim(1000)
    assert log.read(0, 1).data == b"x"


def test_last_lines_are_cut_to_width_and_bars_are_lines(log: LogFile) -> None:
    log.path.write_bytes(b"first\n" + b"w" * 3000 + b"\n\n10%\r20%\nlast \xff\n")
    assert log.last_lines(3) == ("10%", "20%", "last \N{REPLACEMENT CHARACTER}")
    assert log.last_lines(9)[1] == "w" * 1000


def test_offsets_hold_while_a_writer_appends(log: LogFile) -> None:
    descriptor = os.open(log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    offset, seen = 0, b""
    for n in range(200):
        os.write(descriptor, b"%d\n" % n)
        piece = log.read(offset, 3)
        offset, seen = piece.next_offset, seen + piece.data
    seen += log.read(offset).data
    os.close(descriptor)
    assert seen == b"".join(b"%d\n" % n for n in range(200))
