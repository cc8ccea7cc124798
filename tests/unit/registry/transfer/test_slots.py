import threading

import pytest
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.slots import Slots


def test_no_more_than_the_limit_hold_one() -> None:
    slots, halt = Slots(2), Halt()
    with slots.holding("a", Halt()), slots.holding("a", Halt()), slots.holding("b", Halt()):
        threading.Timer(0.02, halt.set).start()
        with pytest.raises(Halted), slots.holding("a", halt):
            pass
    with slots.holding("a", Halt()):
        pass


def test_a_free_slot_is_given_to_who_waits() -> None:
    slots, got = Slots(1), threading.Event()

    def wait() -> None:
        with slots.holding("a", Halt()):
            got.set()

    with slots.holding("a", Halt()):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.02)
    assert got.wait(10)
    thread.join()
