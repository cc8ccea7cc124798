"""What of an error is kept with a download, for those who look at it later."""

from slipway_service.fault import Fault

from slipway_registry.jobs.records import Failure
from slipway_registry.transfer.errors import DiskFull


def failure_of(fault: Fault) -> Failure:
    """What of a Fault is stored with a download."""
    help_url = fault.link.url if fault.link else None
    return Failure(
        reason=fault.reason,
        text=fault.text,
        facts=dict(fault.facts),
        help_url=help_url,
        retry_after=fault.retry_after,
        preconditions=fault.preconditions,
    )


def full_disk(full: DiskFull) -> Failure:
    """A disk that filled though space had been promised, or whose space others took meanwhile."""
    if isinstance(full.__cause__, Fault):
        return failure_of(full.__cause__)
    return failure_of(full.fault("The download goes on when there is space."))
