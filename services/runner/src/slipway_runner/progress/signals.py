"""What a backend's output says, one small value per thing said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Self

from slipway_service.fault import Fault, Link, Precondition, Reason


class LoadStage(StrEnum):
    """The stages of a load, in order."""

    QUEUED = "QUEUED"
    FETCHING = "FETCHING"
    VERIFYING = "VERIFYING"
    STARTING = "STARTING"
    LOADING_WEIGHTS = "LOADING_WEIGHTS"
    WARMING_UP = "WARMING_UP"


class Source(IntEnum):
    """Where a figure comes from; the greater is the better."""

    ESTIMATED = 1
    KERNEL = 2
    LOG = 3
    REPORTED = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """The load is in this stage now."""

    stage: LoadStage
    source: Source = Source.LOG


@dataclass(frozen=True, slots=True)
class Shards:
    """Files of weights: `done` of `total` are loaded; `current` is the name of the one being read, "" if unknown."""

    done: int
    total: int
    current: str = ""
    source: Source = Source.LOG


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of weights that were read so far."""

    done: int
    total: int
    source: Source = Source.KERNEL


@dataclass(frozen=True, slots=True)
class Fraction:
    """The share of `stage` that is done, 0..1."""

    stage: LoadStage
    value: float
    source: Source = Source.LOG


@dataclass(frozen=True, slots=True)
class Detail:
    """What goes on, in words for a person."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The backend says that it serves. Only a hint to ask now: a good answer is what counts."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it fails, or will: remembered until the process ends, the first one wins over later ones.

    What follows `text` are the details of the `Fault` that it was, see there.
    """

    reason: Reason
    text: str
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)
    retry_after: float | None = None
    preconditions: tuple[Precondition, ...] = ()
    link: Link | None = None
    resource: str = ""

    @classmethod
    def of(cls, fault: Fault) -> Self:
        """What of a fault is kept with a model: all but the fields of the request, which is over."""
        return cls(
            reason=fault.reason,
            text=fault.text,
            facts=fault.facts,
            retry_after=fault.retry_after,
            preconditions=fault.preconditions,
            link=fault.link,
            resource=fault.resource,
        )

    @property
    def fault(self) -> Fault:
        """It as a fault, with its details."""
        return Fault(
            self.reason,
            self.text,
            facts=self.facts,
            retry_after=self.retry_after,
            preconditions=self.preconditions,
            link=self.link,
            resource=self.resource,
        )


@dataclass(frozen=True, slots=True)
class InForce:
    """Settings that the backend says it runs with, by the names of `Settings` (`context_length`: `512`)."""

    settings: Mapping[str, str] = field(default_factory=dict)


Signal = Stage | Shards | Bytes | Fraction | Detail | Ready | Cause | InForce
