"""Where `make backends` puts the programs that these tests run; one that is missing fails, it never skips."""

import os
from pathlib import Path

import pytest


def program(backend: str, name: str) -> str:
    """The path of a backend's program."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "slipway" / "backends" / backend / "bin" / name
    if not path.exists():
        pytest.fail(f"{path} is not there: run `make backends`")
    return str(path)
