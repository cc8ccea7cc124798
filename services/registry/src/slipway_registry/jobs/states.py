"""The DownloadState table: which event leads from which state to which, and what it changes on the download.

Pure: `step` takes a download and an event and returns the download after it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from slipway_service.fault import Fault, Reason

from slipway_registry.jobs.records import Download, Failure, PauseReason, State, WaitReason

# A hash may be wrong this often before the download fails: once by chance, twice by a bad cache in between.
MAX_MISMATCHES = 2


@dataclass(frozen=True, slots=True)
class Waits:
    """It stays in the queue and now waits for something else; `failure` tells what of it is missing."""

    reason: WaitReason
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """It got a slot and disk space."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """All bytes are there."""


@dataclass(frozen=True, slots=True)
class SetBack:
    """Something that time may cure; `away_since` while the Hub is away, which costs no try."""

    failure: Failure
    retry_time: datetime
    tries: int
    away_since: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """Its retry time has come."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The process drains, or has been restarted."""


@dataclass(frozen=True, slots=True)
class CredentialLost:
    """The process has been restarted and the caller's token is gone."""


@dataclass(frozen=True, slots=True)
class DiskFilled:
    """The disk is full though space had been granted."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Mismatched:
    """A hash is wrong; what is wrong will be fetched again."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Another program deleted what had been fetched; it will be fetched again."""


@dataclass(frozen=True, slots=True)
class Published:
    """The selection is verified and visible."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A permanent fault, or tries are over."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Paused:
    """A caller pauses it."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A caller resumes it, or brings the credential it lacked."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A caller cancels it. While it is being published the scheduler refuses this before it gets here."""


Event = (
    Waits
    | Granted
    | Fetched
    | SetBack
    | Due
    | Interrupted
    | CredentialLost
    | DiskFilled
    | Mismatched
    | Lost
    | Published
    | Failed
    | Paused
    | Resumed
    | Cancelled
)

_LIVE = (State.QUEUED, State.RUNNING, State.BACKING_OFF, State.VERIFYING, State.PAUSED)

TABLE: dict[tuple[State, type[Event]], State] = {
    (State.QUEUED, Waits): State.QUEUED,
    (State.QUEUED, Granted): State.RUNNING,
    (State.QUEUED, Paused): State.PAUSED,
    (State.QUEUED, Failed): State.FAILED,
    (State.QUEUED, CredentialLost): State.PAUSED,
    (State.RUNNING, Fetched): State.VERIFYING,
    (State.RUNNING, SetBack): State.BACKING_OFF,
    (State.RUNNING, Interrupted): State.QUEUED,
    (State.RUNNING, DiskFilled): State.QUEUED,
    (State.RUNNING, Mismatched): State.RUNNING,
    (State.RUNNING, Paused): State.PAUSED,
    (State.RUNNING, Failed): State.FAILED,
    (State.RUNNING, CredentialLost): State.PAUSED,
    (State.BACKING_OFF, Due): State.QUEUED,
    (State.BACKING_OFF, Interrupted): State.QUEUED,
    (State.BACKING_OFF, Failed): State.FAILED,
    (State.BACKING_OFF, Paused): State.PAUSED,
    (State.BACKING_OFF, CredentialLost): State.PAUSED,
    (State.VERIFYING, Mismatched): State.RUNNING,
    (State.VERIFYING, Lost): State.RUNNING,
    (State.VERIFYING, DiskFilled): State.QUEUED,
    (State.VERIFYING, Published): State.SUCCEEDED,
    (State.VERIFYING, Failed): State.FAILED,
    (State.VERIFYING, Interrupted): State.QUEUED,
    (State.VERIFYING, Paused): State.PAUSED,
    (State.VERIFYING, CredentialLost): State.PAUSED,
    (State.PAUSED, Resumed): State.QUEUED,
    **{(state, Cancelled): State.CANCELLED for state in _LIVE},
}


def is_so(download: Download, event: Event) -> bool:
    """Whether a caller who asks for this has it already."""
    match event:
        case Paused():
            return download.state is State.PAUSED
        case Resumed():
            return not download.state.terminal and download.state is not State.PAUSED
        case Cancelled():
            return download.state is State.CANCELLED
    return False


def step(download: Download, event: Event, at: datetime) -> Download:
    """The download after `event`.

    Raises:
        Fault: DOWNLOAD_STATE_CONFLICT where the table has no such arrow.
    """
    target = TABLE.get((download.state, type(event)))
    if target is None:
        verb = type(event).__name__.lower()
        raise Fault(Reason.DOWNLOAD_STATE_CONFLICT, f"{download.name} is {download.state} and cannot be {verb}")
    changes: dict[str, Any] = {"waiting_for": None, "pause_reason": None, "retry_time": None}
    changes |= _changes(download, event, at)
    if target.terminal:
        changes["end_time"] = at
    return replace(download, state=target, update_time=at, **changes)


def _changes(download: Download, event: Event, at: datetime) -> dict[str, Any]:
    """What an event changes besides the state."""
    match event:
        case Waits(reason, failure):
            return {"waiting_for": reason} | ({"failure": failure} if failure else {})
        case Granted():
            return {"attempt": download.attempt + 1, "start_time": download.start_time or at}
        case SetBack(failure, retry_time, tries, away_since):
            return {"failure": failure, "retry_time": retry_time, "tries": tries, "away_since": away_since}
        case Due() | Interrupted() | Resumed():
            return {"waiting_for": WaitReason.SLOT}
        case DiskFilled(failure):
            return {"waiting_for": WaitReason.DISK, "failure": failure}
        case CredentialLost():
            return {"pause_reason": PauseReason.CREDENTIAL_REQUIRED}
        case Paused():
            return {"pause_reason": PauseReason.BY_CALLER}
        case Mismatched():
            return {"mismatches": download.mismatches + 1}
        case Published():
            return {"failure": None, "away_since": None}
        case Failed(failure):
            return {"failure": failure}
    return {}
