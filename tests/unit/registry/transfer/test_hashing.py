import hashlib
import threading
import uuid
from pathlib import Path

import pytest
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.hashing import OneCore, follow, hash_file
from slipway_registry.transfer.partial import Partial

DATA = bytes(range(256)) * 20_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", [sha256, git_sha1])
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "5 MB"])
def test_a_file_is_hashed_as_its_name_says(tmp_path: Path, name: object, data: bytes) -> None:
    etag = name(data)  # type: ignore[operator]
    path = tmp_path / "file"
    path.write_bytes(data)
    counted: list[int] = []
    assert hash_file(path, etag, OneCore(), Halt(), counted.append) == etag
    assert sum(counted) == len(data)


def test_a_partial_is_hashed_while_it_grows_out_of_order(tmp_path: Path) -> None:
    with Partial.open(tmp_path / "p", len(DATA), boot=uuid.UUID(int=1)) as partial:
        digests: list[str] = []
        thread = threading.Thread(target=lambda: digests.append(follow(partial, sha256(DATA), OneCore(), Halt())))
        thread.start()
        view = memoryview(DATA)
        mib = 1 << 20
        for block in (3, 1, 0, 4, 2):
            partial.write(block * mib, view[block * mib : (block + 1) * mib])
        thread.join(30)
    assert digests == [sha256(DATA)]


def test_following_ends_when_halted(tmp_path: Path) -> None:
    halt = Halt()
    with Partial.open(tmp_path / "p", len(DATA), boot=uuid.UUID(int=1)) as partial:
        threading.Timer(0.01, halt.set).start()
        with pytest.raises(Halted):
            follow(partial, sha256(DATA), OneCore(), halt)


def test_the_core_is_shared_while_several_files_are_followed() -> None:
    core = OneCore()
    seen = [core.shared()]
    with core.following():
        seen.append(core.shared())
        with core.following():
            seen.append(core.shared())
        seen.append(core.shared())
    assert seen == [False, False, True, False]
