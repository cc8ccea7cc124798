import errno
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from slipway_registry.cache import owner
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.owner import HEARTBEAT, MARKER, SILENCES, CacheOwner, CacheTakenError

MODES = Modes(file=0o644, directory=0o755)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        CacheOwner.taking(tmp_path / "hub", "one", MODES),
        pytest.raises(CacheTakenError),
        CacheOwner.taking(tmp_path / "hub", "two", MODES),
    ):
        pass


def test_the_cache_keeps_its_id(tmp_path: Path) -> None:
    with CacheOwner.taking(tmp_path, "one", MODES) as first:
        pass
    with CacheOwner.taking(tmp_path, "two", MODES) as second:
        assert first == second


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_lock", lambda *_: None)


def mark(hub: Path, *, host: str, age: float) -> None:
    marker = hub / ".locks" / MARKER
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"cache_id": "c", "registry_id": "one", "host": host}))
    os.utime(marker, (time.time() - age, time.time() - age))


def test_a_living_owner_on_another_host_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)
    mark(tmp_path, host="elsewhere", age=HEARTBEAT)
    with pytest.raises(CacheTakenError, match="elsewhere"), CacheOwner.taking(tmp_path, "two", MODES):
        pass


@pytest.mark.parametrize(
    ("registry", "host", "age"),
    [
        ("two", "elsewhere", HEARTBEAT * SILENCES + 5),
        ("two", socket.gethostname(), 0.0),
        ("one", "elsewhere", 0.0),
    ],
    ids=["long silent", "killed on this host", "itself, moved"],
)
def test_who_may_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str, host: str, age: float
) -> None:
    without_locks(monkeypatch)
    mark(tmp_path, host=host, age=age)
    with CacheOwner.taking(tmp_path, registry, MODES) as taken:
        assert taken.cache_id == "c"


def test_the_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "HEARTBEAT", 0.01)
    with CacheOwner.taking(tmp_path, "one", MODES):
        touched: list[Path] = []
        beaten = threading.Event()

        def beat(path: Path, *_: object) -> None:
            touched.append(path)
            beaten.set()

        monkeypatch.setattr(os, "utime", beat)
        assert beaten.wait(10)
    assert set(touched) == {tmp_path / ".locks" / MARKER}


def test_one_that_has_stopped_leaves_the_cache_to_any_other_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    with CacheOwner.taking(tmp_path, "one", MODES) as first:
        pass
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with CacheOwner.taking(tmp_path, "two", MODES) as second:
        assert second == first


def test_it_comes_and_goes_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CacheOwner.taking(tmp_path, "one", MODES) as first:
        pass

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(owner, "replace_file", full)
    with CacheOwner.taking(tmp_path, "one", MODES) as again:
        assert again == first


def test_a_spoilt_marker_is_no_owner(tmp_path: Path) -> None:
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / MARKER).write_text("[")
    with CacheOwner.taking(tmp_path, "one", MODES):
        pass
