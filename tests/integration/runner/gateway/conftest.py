"""No gateway outlives its test, even one that failed."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from slipway_runner.process import pidfd

from tests.integration.runner.gateway.processes import gateways_below
from tests.integration.runner.gateway.upstream import Upstream, upstream


@pytest.fixture(autouse=True)
def _no_gateway_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    for process in gateways_below(tmp_path):
        pidfd.send(process, signal.SIGKILL)


@pytest.fixture
async def backend() -> AsyncIterator[Upstream]:
    async with upstream() as one:
        yield one


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session
