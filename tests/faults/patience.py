"""How long connections wait for a byte: what a busy machine's pause is must not look like a stall."""

from typing import Any

from slipway_registry.transfer.wire import WireSettings
from slipway_registry.transfer.xet import XetSettings


def settings(stall_timeout: float) -> dict[str, Any]:
    """An engine's, whose connections are given up after so many seconds without a byte."""
    return {
        "wire": WireSettings(stall_timeout=stall_timeout),
        "xet": XetSettings(stall_timeout=stall_timeout, tries=1, buffer_bytes=64_000_000),
    }


PATIENT = settings(60.0)
# Where stalls are what goes wrong: a pause is taken for another one, and a try for each is left.
STALLING = settings(1.5)
