import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from slipway_registry.transfer.budget import Claim, DiskBudget
from slipway_service.fault import Reason

FRAGMENT = 4096


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets what the file system says of itself, in bytes."""

    def set_disk(free: int, total: int) -> None:
        found = SimpleNamespace(f_bavail=free // FRAGMENT, f_blocks=total // FRAGMENT, f_frsize=FRAGMENT)
        monkeypatch.setattr(os, "statvfs", lambda _: found)

    return set_disk


def claims(tmp_path: Path, **sizes: int) -> dict[str, Claim]:
    return {etag: Claim(size, tmp_path / etag) for etag, size in sizes.items()}


def test_all_jobs_draw_on_the_same_space(disk: Callable[[int, int], None], tmp_path: Path) -> None:
    disk(10 * FRAGMENT, 100 * FRAGMENT)
    budget = DiskBudget(tmp_path, reserve=FRAGMENT)
    assert budget.claim("one", claims(tmp_path, a=5 * FRAGMENT)) is None
    shortage = budget.claim("two", claims(tmp_path, b=5 * FRAGMENT))
    assert shortage is not None
    assert (shortage.needed, shortage.free, shortage.reserve, shortage.ever) == (
        5 * FRAGMENT,
        5 * FRAGMENT,
        FRAGMENT,
        True,
    )
    budget.release("one")
    assert budget.claim("two", claims(tmp_path, b=5 * FRAGMENT)) is None


def test_a_shared_blob_counts_once_until_its_last_job_goes(disk: Callable[[int, int], None], tmp_path: Path) -> None:
    disk(10 * FRAGMENT, 100 * FRAGMENT)
    budget = DiskBudget(tmp_path, reserve=0)
    assert budget.claim("one", claims(tmp_path, a=8 * FRAGMENT)) is None
    assert budget.claim("two", claims(tmp_path, a=8 * FRAGMENT, b=FRAGMENT)) is None
    budget.release("one")
    assert budget.claim("three", claims(tmp_path, c=2 * FRAGMENT)) is not None
    budget.release("two")
    assert budget.claim("three", claims(tmp_path, c=2 * FRAGMENT)) is None


def test_what_is_allocated_is_not_counted_twice(disk: Callable[[int, int], None], tmp_path: Path) -> None:
    disk(2 * FRAGMENT, 100 * FRAGMENT)
    (tmp_path / "a").write_bytes(bytes(8 * FRAGMENT))
    budget = DiskBudget(tmp_path, reserve=0)
    assert budget.claim("one", claims(tmp_path, a=9 * FRAGMENT)) is None


def test_what_can_never_fit_is_said(disk: Callable[[int, int], None], tmp_path: Path) -> None:
    disk(50 * FRAGMENT, 60 * FRAGMENT)
    shortage = DiskBudget(tmp_path, reserve=5 * FRAGMENT).claim("one", claims(tmp_path, a=56 * FRAGMENT))
    assert shortage is not None
    assert not shortage.ever
    fault = shortage.fault()
    assert fault.reason is Reason.DISK_FULL
    assert fault.facts == {"needed": str(56 * FRAGMENT), "free": str(50 * FRAGMENT), "reserve": str(5 * FRAGMENT)}
    assert fault.preconditions[0].type == "DISK"
    assert fault.text == f"229.4 kB are needed on {tmp_path}, 204.8 kB are free and 20.5 kB of them reserved"


def test_nothing_needed_fits_on_a_full_disk(disk: Callable[[int, int], None], tmp_path: Path) -> None:
    disk(0, 60 * FRAGMENT)
    assert DiskBudget(tmp_path).claim("one", {}) is None


def test_the_reserve_is_small_on_a_small_disk(tmp_path: Path) -> None:
    budget = DiskBudget(tmp_path)
    assert budget.reserve(10 << 30) == int((10 << 30) * 0.02)
    assert budget.reserve(4 << 40) == 1 << 30
