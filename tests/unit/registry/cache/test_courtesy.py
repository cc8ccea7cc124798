import fcntl
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from slipway_registry.cache import courtesy
from slipway_registry.cache.courtesy import holding_hub_lock
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.symlinks import symlinks_work
from slipway_registry.transfer.halt import Halt, Halted

MODES = Modes(file=0o644, directory=0o755)


def test_native_clients_wait_for_us(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "etag.lock"
    with holding_hub_lock(lock, MODES, Halt()), pytest.raises(Timeout):
        FileLock(lock, timeout=0).acquire()
    with FileLock(lock, timeout=0):
        pass


def test_we_do_not_wait_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "PATIENCE", 0.0)
    entered = False
    with FileLock(tmp_path / "lock"), holding_hub_lock(tmp_path / "lock", MODES, Halt()):
        entered = True
    assert entered


def test_a_halt_ends_the_wait(tmp_path: Path) -> None:
    halt = Halt()
    threading.Timer(0.02, halt.set).start()
    with FileLock(tmp_path / "lock"), pytest.raises(Halted), holding_hub_lock(tmp_path / "lock", MODES, halt):
        pass


@pytest.mark.parametrize("code", [37, 95, 5], ids=["ENOLCK", "EOPNOTSUPP", "EIO"])
def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with holding_hub_lock(tmp_path / "lock", MODES, Halt()):
        pass


def test_a_lock_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    with holding_hub_lock(tmp_path / "locks" / "x.lock", MODES, Halt()):
        pass


def test_symlinks_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert symlinks_work(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert not symlinks_work(tmp_path)
