"""What the exit code of `preload` says. The numbers are those of the `slipway` command."""

from slipway_service.fault import Fault, Reason

DEFECT = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4
TAKEN = 5
DISK = 6
HUB = 7
DAMAGED = 12

_CODES = {
    Reason.REPO_NOT_FOUND: NOT_FOUND,
    Reason.REVISION_NOT_FOUND: NOT_FOUND,
    Reason.ENTRY_NOT_FOUND: NOT_FOUND,
    Reason.VARIANT_NOT_FOUND: NOT_FOUND,
    Reason.SELECTION_EMPTY: NOT_FOUND,
    Reason.REPO_GATED: DENIED,
    Reason.REPO_DISABLED: DENIED,
    Reason.CREDENTIAL_INVALID: DENIED,
    Reason.SERVICE_CREDENTIAL_INVALID: DENIED,
    Reason.CREDENTIAL_REQUIRED: DENIED,
    Reason.DISK_FULL: DISK,
    Reason.DISK_FAULT: DISK,  # a disk that cannot be written is the caller's own here, not a service's defect
    Reason.HUB_RATE_LIMITED: HUB,
    Reason.HUB_UNREACHABLE: HUB,
    Reason.HUB_ERROR: HUB,
    Reason.OFFLINE: HUB,
    Reason.HUB_ANSWER_UNSAFE: HUB,
    Reason.HASH_MISMATCH: DAMAGED,
    Reason.TRANSFER_FAILED: HUB,
}

MEANING = (
    "Exit codes: 0 all is there, 2 the command line or the configuration is wrong, 3 no such repository, revision, "
    "variant or file, 4 gated or a wrong token, 5 a registry works with the cache, 6 the disk is full or cannot be "
    "written, 7 the Hub cannot be reached or does not give what it should, 12 what it gives has another hash than it "
    "states, 130 and 143 interrupted."
)


def exit_code(fault: Fault) -> int:
    """The exit code for a target that cannot be had."""
    return _CODES.get(fault.reason, DEFECT)
