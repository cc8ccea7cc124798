"""One loop for all of these tests.

grpc.aio has one completion queue for all loops of a process. Events of calls that a test has left (a retry, a cancelled
stream) may come after its end; with a loop for each test they would find theirs closed and fail the next test.
"""

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    yield  # noqa: PT022 - a fixture that yields keeps the loop
