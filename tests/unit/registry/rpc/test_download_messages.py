"""What callers see of a download's failure: while it stands in the way, with when to come back and what is missing."""

from functools import partial

import pytest
from slipway_registry.jobs.records import Download, Failure, State, WaitReason
from slipway_registry.rpc import to_proto
from slipway_service.fault import Precondition, Reason
from slipway_service.rpc_errors import from_status

from tests.unit.registry.jobs.samples import download

AWAY = Failure(reason=Reason.HUB_RATE_LIMITED, text="429", retry_after=2.5)
TIGHT = "8.0 GB are needed"
FULL = Failure(
    reason=Reason.DISK_FULL,
    text=TIGHT,
    facts={"needed": "8", "free": "4", "reserve": "1"},
    preconditions=(Precondition("DISK", "/hub", TIGHT),),
)

shown_of = partial(to_proto.download, retention=60.0)


def test_a_download_that_backs_off_says_when_it_comes_back() -> None:
    shown = from_status(shown_of(download(state=State.BACKING_OFF, failure=AWAY)).error)
    assert (shown.reason, shown.retry_after) == (Reason.HUB_RATE_LIMITED, 2.5)


def test_a_download_that_waits_for_space_says_how_much() -> None:
    message = shown_of(download(state=State.QUEUED, waiting_for=WaitReason.DISK, failure=FULL))
    shown = from_status(message.error)
    assert (shown.reason, shown.facts, shown.preconditions) == (FULL.reason, FULL.facts, FULL.preconditions)
    assert message.message == f"waits for disk: {TIGHT}"


@pytest.mark.parametrize(
    "over",
    [
        download(state=State.QUEUED, failure=AWAY),
        download(state=State.RUNNING, failure=AWAY),
        download(state=State.VERIFYING, failure=AWAY),
        download(state=State.PAUSED, failure=AWAY),
        download(state=State.CANCELLED, failure=AWAY),
    ],
    ids=lambda given: given.state,
)
def test_what_a_download_has_got_over_is_not_shown(over: Download) -> None:
    assert not shown_of(over).HasField("error")
