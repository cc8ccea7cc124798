import threading

import pytest
from slipway_registry.transfer.halt import Halt, Halted


def test_it_wakes_what_is_registered_and_nothing_after() -> None:
    halt, woken = Halt(), []
    with halt.waking(lambda: woken.append("inner")):
        halt.set()
    assert woken == ["inner"]
    with pytest.raises(Halted), halt.waking(lambda: woken.append("late")):
        pass
    assert woken == ["inner"]


def test_what_has_ended_is_not_woken() -> None:
    halt, woken = Halt(), []
    with halt.waking(lambda: woken.append("over")):
        pass
    halt.set()
    assert woken == []


def test_a_waker_that_fails_does_not_keep_others_from_being_woken() -> None:
    halt, woken = Halt(), []

    def fail() -> None:
        raise OSError

    with halt.waking(fail), halt.waking(lambda: woken.append(1)):
        halt.set()
    assert woken == [1]


def test_a_wait_ends_at_once() -> None:
    halt = Halt()
    threading.Timer(0.01, halt.set).start()
    with pytest.raises(Halted):
        halt.wait(60)


def test_checks() -> None:
    halt = Halt()
    halt.check()
    halt.set()
    with pytest.raises(Halted):
        halt.check()


def test_who_leaves_takes_only_its_own_registration() -> None:
    halt, woken = Halt(), list[int]()

    def wake() -> None:
        woken.append(1)

    with halt.waking(wake):
        with halt.waking(wake):
            pass
        halt.set()
    assert woken == [1]
