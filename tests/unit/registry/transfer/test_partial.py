import errno
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from slipway_registry.transfer.errors import DiskFull, Setback, Vanished, disk_errors
from slipway_registry.transfer.halt import Halt, Halted
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


def test_a_follower_is_woken_by_bytes_and_by_a_halt(tmp_path: Path) -> None:
    reached: list[int] = []
    halt = Halt()
    with opened(tmp_path / "p") as partial:

        def follow() -> None:
            try:
                while True:
                    reached.append(partial.wait_beyond(reached[-1] if reached else 0, halt))
            except Halted:
                reached.append(-1)

        thread = threading.Thread(target=follow)
        thread.start()
        partial.write(0, memoryview(DATA_BYTES)[:50])
        halt.set()
        thread.join(10)
    assert reached[-1] == -1


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
