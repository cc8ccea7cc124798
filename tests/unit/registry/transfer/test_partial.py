import errno
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from slipway_registry.transfer.errors import DiskFull, Setback, Vanished, disk_errors
from slipway_registry.transfer.partial import DATA, Partial
from slipway_service.fault import Fault, Reason

SIZE = 100
BLOCK = 16
DATA_BYTES = bytes(range(SIZE))


def opened(directory: Path, boot: int = 1) -> Partial:
    return Partial.open(directory, SIZE, boot=uuid.UUID(int=boot), block_bytes=BLOCK)


def test_it_has_its_full_size_from_the_start(tmp_path: Path) -> None:
    with opened(tmp_path / "p"):
        assert (tmp_path / "p" / DATA).stat().st_size == SIZE


def test_memory_is_not_cleared_before_it_is_written() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, opened(Path(memory) / "p"):
        status = (Path(memory) / "p" / DATA).stat()
    assert (status.st_size, status.st_blocks) == (SIZE, 0)


def test_bytes_written_across_blocks_are_found_again(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.write(0, memoryview(DATA_BYTES)[:50])
        partial.write(64, memoryview(DATA_BYTES)[64:70])
    with opened(tmp_path / "p") as partial:
        assert partial.frontier.gaps() == [(50, 64), (70, 100)]
        partial.write(50, memoryview(DATA_BYTES)[50:64])
        partial.write(70, memoryview(DATA_BYTES)[70:])
        assert partial.read(0, SIZE) == DATA_BYTES
        assert partial.frontier.damaged(partial.read) == []


def test_bytes_that_are_there_are_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.write(0, memoryview(DATA_BYTES)[:20])
        partial.write(0, memoryview(b"\xff" * 20 + DATA_BYTES[20:40]))
        assert partial.read(0, 40) == DATA_BYTES[:40]


def test_a_gap_within_a_block_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial, pytest.raises(ValueError, match="does not continue"):
        partial.write(3, memoryview(b"abc"))


def test_another_size_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.write(0, memoryview(DATA_BYTES)[:50])
    with Partial.open(tmp_path / "p", SIZE + 1, boot=uuid.UUID(int=1), block_bytes=BLOCK) as partial:
        assert partial.frontier.done == 0
        assert partial.read(0, SIZE + 1) == bytes(SIZE + 1)


def test_a_reboot_costs_what_did_not_reach_the_disk(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.write(0, memoryview(DATA_BYTES))
    with (tmp_path / "p" / DATA).open("r+b") as file:
        file.seek(20)
        file.write(bytes(4))
    with opened(tmp_path / "p", boot=2) as partial:
        assert partial.frontier.gaps() == [(16, 32)]


def test_the_same_boot_trusts_what_the_kernel_holds(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.write(0, memoryview(DATA_BYTES))
    with opened(tmp_path / "p") as partial:
        assert partial.frontier.gaps() == []


def test_removal_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.check_present()
        (tmp_path / "p" / DATA).unlink()
        with pytest.raises(Vanished):
            partial.check_present()


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from slipway_registry.transfer.partial import Partial
partial = Partial.open(Path(sys.argv[1]), 100)
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "p")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(Setback, match="another process"):
            opened(tmp_path / "p")
        other.communicate()
    with opened(tmp_path / "p"):
        pass


def test_bytes_that_were_passed_over_are_not_lent(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.handover.begin(lambda _: None, bool, least=1)
        partial.write(0, memoryview(DATA_BYTES)[:20])
        assert not partial.write(0, memoryview(b"\xff" * 20 + DATA_BYTES[20:40]), lend=True)


def test_the_crc_is_of_what_was_written_whatever_the_hash_does_with_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = bytearray(DATA_BYTES)
    with opened(tmp_path / "p") as partial:

        def offer(_: int, view: memoryview) -> bool:
            view[:] = bytes(len(view))  # hashed, and taken by another connection
            return True

        monkeypatch.setattr(partial.handover, "offer", offer)
        assert partial.write(0, memoryview(buffer), lend=True)
        assert partial.frontier.damaged(partial.read) == []


def test_the_crc_is_right_when_another_writes_the_start_of_a_block_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    with opened(tmp_path / "p") as partial:

        def interrupted(fd: int, view: memoryview, offset: int) -> int:
            monkeypatch.setattr(os, "pwrite", write)
            partial.write(0, memoryview(DATA_BYTES)[:5])
            return write(fd, view, offset)

        monkeypatch.setattr(os, "pwrite", interrupted)
        partial.write(0, memoryview(DATA_BYTES)[:10])
        assert partial.frontier.entry(0)[0] == 10
        assert partial.frontier.damaged(partial.read) == []


def test_mode_and_sync(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partial:
        partial.sync(0o640)
    assert (tmp_path / "p" / DATA).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_apart(code: int) -> None:
    with pytest.raises(DiskFull), disk_errors("here"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES])
def test_other_refusals_name_path_and_errno(code: int) -> None:
    with pytest.raises(Fault) as caught, disk_errors("here"):
        raise OSError(code, os.strerror(code), "/cache/file")
    assert caught.value.reason is Reason.DISK_FAULT
    assert caught.value.facts == {"path": "/cache/file", "errno": errno.errorcode[code]}
