"""What a download is, as values: what the store keeps, the scheduler changes and the API shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from slipway_service.fault import Precondition, Reason
from slipway_service.weights.names import Commit, RepoId, Revision


class State(StrEnum):
    """Where a download stands; `states.py` has the table."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    BACKING_OFF = "BACKING_OFF"
    VERIFYING = "VERIFYING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class WaitReason(StrEnum):
    """What a queued download waits for."""

    SLOT = "SLOT"
    DISK = "DISK"
    HUB_RATE = "HUB_RATE"


class PauseReason(StrEnum):
    """Why a download is paused."""

    BY_CALLER = "BY_CALLER"
    CREDENTIAL_REQUIRED = "CREDENTIAL_REQUIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a download failed, or what the last setback was; the parts of a Fault that can be stored."""

    reason: Reason
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)
    help_url: str | None = None  # where access to a gated repository is asked for
    retry_after: float | None = None  # seconds, counted from when this was recorded
    preconditions: tuple[Precondition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Figures of a download; sizes in bytes.

    `done_bytes` counts what is on the disk, whoever brought it; it goes back only when a hash was wrong or another
    program deleted files.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    cached_bytes: int = 0  # of done: in the cache before this download was created
    resumed_bytes: int = 0  # of done: fetched by earlier attempts
    done_files: int = 0
    total_files: int = 0
    bytes_per_second: float | None = None  # smoothed; None while nothing can be said
    eta_seconds: float | None = None  # None where the rate says nothing about the end
    files_in_flight: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One download. `id` is a UUID in hex, unique for ever.

    `revision` is what was asked for, `commit` what it was at that moment, `also` what others called the same commit who
    asked for the same meanwhile. `selection` is the caller's, for display; the
    files that it meant are fixed at creation. `tries` counts job-level tries without progress, `attempt` every start.
    """

    id: str
    repo: RepoId
    revision: Revision
    commit: Commit
    selection: Mapping[str, object]
    key: str  # repo, commit and selected files: two live downloads never have the same
    state: State
    waiting_for: WaitReason | None = None
    pause_reason: PauseReason | None = None
    retry_time: datetime | None = None
    failure: Failure | None = None
    attempt: int = 0
    tries: int = 0
    mismatches: int = 0
    away_since: datetime | None = None
    callers_credential: bool = False  # runs on a caller's own token, which is never stored
    progress: Progress = field(default_factory=Progress)
    create_time: datetime
    update_time: datetime
    start_time: datetime | None = None  # of the first attempt
    end_time: datetime | None = None
    also: tuple[Revision, ...] = ()
    log_revision: int = 0  # of its last transition, what its etag is made of; 0 for one that was not recorded

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"downloads/{self.id}"

    @property
    def etag(self) -> str:
        """Changes with each transition."""
        return f"{self.log_revision:x}"
