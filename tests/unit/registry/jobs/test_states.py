from collections.abc import Iterator
from datetime import timedelta
from typing import get_args

import pytest
from slipway_registry.jobs import states
from slipway_registry.jobs.records import Failure, PauseReason, State, WaitReason
from slipway_service.fault import Fault, Reason

from tests.unit.registry.jobs.samples import NOW, download

LATER = NOW + timedelta(minutes=1)
FAILURE = Failure(reason=Reason.HUB_ERROR, text="503")
EVENTS: dict[type, states.Event] = {
    states.Waits: states.Waits(WaitReason.HUB_RATE),
    states.Granted: states.Granted(),
    states.Fetched: states.Fetched(),
    states.SetBack: states.SetBack(FAILURE, LATER, 2, NOW),
    states.Due: states.Due(),
    states.Interrupted: states.Interrupted(),
    states.CredentialLost: states.CredentialLost(),
    states.DiskFilled: states.DiskFilled(FAILURE),
    states.Mismatched: states.Mismatched(),
    states.Lost: states.Lost(),
    states.Published: states.Published(),
    states.Failed: states.Failed(FAILURE),
    states.Paused: states.Paused(),
    states.Resumed: states.Resumed(),
    states.Cancelled: states.Cancelled(),
}

# The contract's table, written once more by hand: state, event, state.
ARROWS = """
QUEUED      Waits          QUEUED
QUEUED      Granted        RUNNING
QUEUED      Paused         PAUSED
QUEUED      Failed         FAILED
QUEUED      Cancelled      CANCELLED
QUEUED      CredentialLost PAUSED
RUNNING     Fetched        VERIFYING
RUNNING     SetBack        BACKING_OFF
RUNNING     Interrupted    QUEUED
RUNNING     DiskFilled     QUEUED
RUNNING     Mismatched     RUNNING
RUNNING     Paused         PAUSED
RUNNING     Failed         FAILED
RUNNING     Cancelled      CANCELLED
RUNNING     CredentialLost PAUSED
BACKING_OFF Due            QUEUED
BACKING_OFF Interrupted    QUEUED
BACKING_OFF Failed         FAILED
BACKING_OFF Paused         PAUSED
BACKING_OFF Cancelled      CANCELLED
BACKING_OFF CredentialLost PAUSED
VERIFYING   Mismatched     RUNNING
VERIFYING   Lost           RUNNING
VERIFYING   DiskFilled     QUEUED
VERIFYING   Published      SUCCEEDED
VERIFYING   Failed         FAILED
VERIFYING   Interrupted    QUEUED
VERIFYING   Paused         PAUSED
VERIFYING   Cancelled      CANCELLED
VERIFYING   CredentialLost PAUSED
PAUSED      Resumed        QUEUED
PAUSED      Cancelled      CANCELLED
"""
EXPECTED = {(State(source), event): State(target) for source, event, target in map(str.split, ARROWS.split("\n")[1:-1])}


def pairs() -> Iterator[tuple[State, type]]:
    for state in State:
        for kind in get_args(states.Event):
            yield state, kind


@pytest.mark.parametrize(("state", "kind"), list(pairs()))
def test_every_pair_of_state_and_event(state: State, kind: type) -> None:
    expected = EXPECTED.get((state, kind.__name__))
    if expected is None:
        with pytest.raises(Fault) as caught:
            states.step(download(state=state), EVENTS[kind], LATER)
        assert caught.value.reason is Reason.DOWNLOAD_STATE_CONFLICT
        assert state in caught.value.text
        return
    after = states.step(download(state=state), EVENTS[kind], LATER)
    assert after.state is expected
    assert after.update_time == LATER
    assert (after.end_time == LATER) is expected.terminal


def test_nothing_leaves_a_terminal_state() -> None:
    assert {state for state, _ in states.TABLE if state.terminal} == set()


def test_what_each_event_says() -> None:
    queued = download(waiting_for=WaitReason.DISK)
    running = states.step(queued, states.Granted(), LATER)
    assert (running.attempt, running.start_time, running.waiting_for) == (1, LATER, None)

    off = states.step(running, states.SetBack(FAILURE, LATER, 2, NOW), LATER)
    assert (off.failure, off.retry_time, off.tries, off.away_since) == (FAILURE, LATER, 2, NOW)

    due = states.step(off, states.Due(), LATER)
    assert (due.retry_time, due.waiting_for, due.failure) == (None, WaitReason.SLOT, FAILURE)

    again = states.step(due, states.Granted(), LATER + timedelta(1))
    assert (again.attempt, again.start_time) == (2, LATER)

    full = states.step(again, states.DiskFilled(FAILURE), LATER)
    assert (full.waiting_for, full.failure) == (WaitReason.DISK, FAILURE)

    wrong = states.step(again, states.Mismatched(), LATER)
    assert wrong.mismatches == 1

    verified = states.step(states.step(wrong, states.Fetched(), LATER), states.Published(), LATER)
    assert (verified.failure, verified.away_since) == (None, None)


def test_a_pause_says_why() -> None:
    assert states.step(download(), states.Paused(), LATER).pause_reason is PauseReason.BY_CALLER
    lost = states.step(download(), states.CredentialLost(), LATER)
    assert lost.pause_reason is PauseReason.CREDENTIAL_REQUIRED
    assert states.step(lost, states.Resumed(), LATER).pause_reason is None
