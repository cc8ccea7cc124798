"""A guard against requests: no socket of this process connects, looks up a name or sends."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest


@contextmanager
def unplugged() -> Iterator[list[object]]:
    """Every attempt to connect or to look up a name, noted and refused. gRPC's own sockets are not Python's."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> NoReturn:
        attempts.append(arguments)
        raise OSError("there is no network in this test")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        for name in ("getaddrinfo", "create_connection", "gethostbyname"):
            patch.setattr(socket, name, refuse)
        yield attempts


@pytest.fixture
def no_network() -> Iterator[list[object]]:
    """The attempts of a test that has no network."""
    with unplugged() as attempts:
        yield attempts
