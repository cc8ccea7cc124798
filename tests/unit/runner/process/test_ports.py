import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from slipway_runner.process import ports, proc
from slipway_runner.process.ports import Owner, Ports
from slipway_runner.process.proc import ProcessId
from slipway_service.fault import Fault, Reason


@pytest.fixture
def held() -> Iterator[Ports]:
    held = Ports()
    yield held
    held.close()


def me() -> ProcessId:
    mine = proc.stat(os.getpid())
    assert mine is not None
    return mine.id


def listener(port: int, *options: int) -> socket.socket:
    server = socket.socket()
    for option in options:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        server.bind(("127.0.0.1", port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_server_that_shares_can_bind_a_held_port_and_one_that_does_not_cannot(held: Ports, option: int) -> None:
    port = held.hold()
    with pytest.raises(OSError, match="in use"):
        listener(port)
    with closing(listener(port, option)):
        assert ports.owner(port, [me()]) is Owner.OURS


def test_a_held_port_is_given_to_nobody_else(held: Ports) -> None:
    mine = {held.hold() for _ in range(50)}
    assert len(mine) == 50
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert other.getsockname()[1] not in mine


def test_a_released_port_can_be_had_again(held: Ports) -> None:
    port = held.hold()
    held.release(port)
    held.release(port)
    listener(port).close()


def test_a_range_is_used_up_and_then_refused(held: Ports) -> None:
    base = held.hold()
    held.release(base)
    few = Ports(choices=range(base, base + 2))
    with closing(listener(base, socket.SO_REUSEPORT)):
        assert few.hold() == base + 1
        with pytest.raises(Fault) as refused:
            few.hold()
    assert refused.value.reason is Reason.PORT_IN_USE
    few.close()


def test_a_claimed_port_is_not_handed_out(held: Ports) -> None:
    port = held.hold()
    held.release(port)
    one = Ports(choices=range(port, port + 1))
    one.claim(port)
    with pytest.raises(Fault):
        one.hold()
    one.release(port)
    assert one.hold() == port
    one.close()


def test_who_listens(held: Ports) -> None:
    port = held.hold()
    assert ports.owner(port, [me()]) is Owner.NOBODY
    with closing(listener(port, socket.SO_REUSEPORT)):
        assert ports.owner(port, [me()]) is Owner.OURS
        assert ports.owner(port, []) is Owner.FOREIGN
        assert ports.owner(port, [ProcessId(1, 0)]) is Owner.FOREIGN


def test_ipv6_listeners_count() -> None:
    with closing(socket.socket(socket.AF_INET6)) as server:
        server.bind(("::1", 0))
        server.listen()
        assert ports.owner(server.getsockname()[1], [me()]) is Owner.OURS
