"""Fixtures that every test may use."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is decides no test: examples have no deadline and may be made slowly.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and so would every program that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """grpc.aio exists for asyncio only, so that is the one backend there is."""
    return "asyncio"
