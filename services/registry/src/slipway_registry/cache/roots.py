"""Which directories of this host snapshots may be written to and taken from."""

import os
from collections.abc import Sequence
from pathlib import Path

from slipway_service.fault import Fault, Reason


def allowed(directory: str, roots: Sequence[Path]) -> Path:
    """The directory with its links followed, below a root that the operator allows.

    Raises:
        Fault: PATH_NOT_ALLOWED.
    """
    real = Path(os.path.realpath(directory))
    if not os.path.isabs(directory) or not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        named = ", ".join(map(str, roots)) or "none is configured: see --export-roots"
        text = f"{directory!r} does not lie below a root for exports and imports ({named})."
        raise Fault(Reason.PATH_NOT_ALLOWED, text)
    return real
