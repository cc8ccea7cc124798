"""Claims on memory."""

from dataclasses import replace

import pytest
from slipway_runner.devices.device import DeviceKind, DeviceProcess
from slipway_runner.devices.reserve import Reservations, place
from slipway_service.fault import Fault, Reason

from tests.unit.runner.devices.test_inventory import device

A, B = device("GPU-a", free=80), device("GPU-b", free=50, index=1)


def test_what_one_load_has_claimed_another_cannot_have() -> None:
    claims = Reservations()
    claims.reserve("one", {"GPU-a": 60}, [A, B])
    assert (claims.available(A), claims.available(B)) == (20, 50)
    with pytest.raises(Fault) as refused:
        claims.reserve("two", {"GPU-a": 30, "GPU-b": 30}, [A, B])
    assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
    assert [(one.subject, one.description) for one in refused.value.preconditions] == [
        ("GPU-a", "needed_bytes=30 free_bytes=20")
    ]
    assert claims.available(B) == 50  # all or nothing
    claims.release("one")
    claims.reserve("two", {"GPU-a": 30, "GPU-b": 30}, [A, B])
    assert (claims.available(A), claims.available(B)) == (50, 20)


def test_a_claim_is_replaced_by_another_of_the_same_owner() -> None:
    claims = Reservations()
    claims.reserve("one", {"GPU-a": 60}, [A])
    claims.reserve("one", {"GPU-a": 70}, [A])
    assert claims.available(A) == 10


def test_what_is_taken_already_is_not_counted_twice() -> None:
    claims = Reservations()
    claims.reserve("one", {"GPU-a": 60}, [A])
    claims.started("one", [7, 8])
    loading = replace(
        A,
        memory_free=40,
        processes=(DeviceProcess(pid=7, memory_bytes=30), DeviceProcess(pid=9, memory_bytes=10)),
    )
    assert claims.available(loading) == 40 - (60 - 30)
    loaded = replace(A, memory_free=10, processes=(DeviceProcess(pid=8, memory_bytes=70),))
    assert claims.available(loaded) == 10


def test_who_waits_for_room_keeps_it_from_those_who_come_later_only() -> None:
    claims = Reservations()
    claims.reserve("before", {"GPU-a": 60}, [A])
    claims.claim("waiting", {"GPU-a": 80}, waits=True)
    assert claims.available(A) == 0
    claims.reserve("before", {"GPU-a": 60}, [A])
    claims.release("before")
    claims.reserve("waiting", {"GPU-a": 80}, [A])
    with pytest.raises(Fault) as refused:
        claims.reserve("after", {"GPU-a": 1}, [A])
    assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT


def test_a_device_that_was_lost_meanwhile_has_nothing_left() -> None:
    claims = Reservations()
    claims.reserve("one", {"GPU-a": 60}, [A])
    assert claims.available(replace(A, usable=False, memory_free=0)) == 0


@pytest.mark.parametrize("owner", ["nobody"])
def test_who_claims_nothing_may_say_so(owner: str) -> None:
    claims = Reservations()
    claims.started(owner, [1])
    claims.release(owner)
    assert claims.available(A) == 80


def test_the_smallest_room_that_is_enough_is_taken() -> None:
    free = {"GPU-a": 80, "GPU-b": 50}
    assert place(40, [A, B], free) == {"GPU-b": 40}
    assert place(60, [A, B], free) == {"GPU-a": 60}


def test_a_model_is_spread_over_as_many_devices_as_told() -> None:
    assert place(99, [A, B], {"GPU-a": 80, "GPU-b": 50}, count=2) == {"GPU-b": 50, "GPU-a": 50}


def test_where_there_is_no_room_needed_and_free_are_told_for_each_device() -> None:
    gone = replace(device("GPU-c", DeviceKind.CUDA), usable=False)
    with pytest.raises(Fault) as refused:
        place(200, [A, B, gone], {"GPU-a": 80, "GPU-b": 50, "GPU-c": 0}, count=2)
    assert [(one.subject, one.description) for one in refused.value.preconditions] == [
        ("GPU-a", "needed_bytes=100 free_bytes=80"),
        ("GPU-b", "needed_bytes=100 free_bytes=50"),
    ]
    with pytest.raises(Fault, match="There is no usable device"):
        place(1, [], {})
