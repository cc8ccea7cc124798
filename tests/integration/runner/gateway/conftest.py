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
    """Closes the answers that a test has left open, whatever became of it."""
    answers: list[aiohttp.ClientResponse] = []

    async def remember(_session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        answers.append(ended.response)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(remember)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=110), trace_configs=[trace]) as session:
        yield session
        for answer in answers:
            answer.close()
