"""Fixtures that every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """grpc.aio exists for asyncio only, so that is the one backend there is."""
    return "asyncio"
