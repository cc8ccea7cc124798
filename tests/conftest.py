"""Fixtures that every test may use."""

import signal
from collections.abc import Iterator

import pytest
from anyio.pytest_plugin import get_runner
from hypothesis import HealthCheck, settings

# How fast a machine is decides no test: examples have no deadline and may be made slowly.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and so would every program that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> Iterator[str]:
    """asyncio, since grpc.aio exists for nothing else; one event loop for all tests of a process.

    grpc.aio has one completion queue in a process. With a loop for each test, what is left of a call of the test before
    (a cancelled one ends later) would come when its loop is closed, and end the test that runs then. A test that is no
    coroutine has to use `asyncio.run`: `anyio.run` takes itself to be within this loop.
    """
    with get_runner("asyncio", {}):
        yield "asyncio"
