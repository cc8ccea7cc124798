"""One loop for all of these tests, and no configuration of whoever runs them.

grpc.aio has one completion queue for all loops of a process. Events of calls that a test has left (a retry, a cancelled
stream) may come after its end; with a loop for each test they would find theirs closed and fail the next test.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    yield  # noqa: PT022 - a fixture that yields keeps the loop


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SLIPWAY_REGISTRY", "SLIPWAY_RUNNER", "SLIPWAY_HF_TOKEN", "SLIPWAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
