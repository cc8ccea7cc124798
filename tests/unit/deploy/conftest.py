"""Where a test's backends go, and a machine on which nothing can be compiled."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "slipway" / "backends"


@pytest.fixture
def compilerless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling fails at once: what is installed then can only be a link."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CXX", raising=False)
