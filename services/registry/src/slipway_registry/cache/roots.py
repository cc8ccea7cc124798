"""Which directories of this host snapshots may be written to and taken from."""

import os
from collections.abc import Sequence
from pathlib import Path

from slipway_service.fault import Fault, FieldViolation, Reason


def allowed(directory: str, roots: Sequence[Path]) -> Path:
    """The directory with its links followed, below a root that the operator allows.

    Raises:
        Fault: PATH_NOT_ALLOWED; INVALID_FIELDS, it has a NUL, which no path has.
    """
    if "\0" in directory:
        text = "directory has a NUL character, which no path has."
        raise Fault(Reason.INVALID_FIELDS, text, fields=(FieldViolation("directory", "must be a path, without NUL"),))
    if not os.path.isabs(directory):
        text = f"{directory!r} is relative: give the absolute path of a directory on the registry's host."
        raise Fault(Reason.PATH_NOT_ALLOWED, text)
    real = Path(os.path.realpath(directory))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        named = ", ".join(map(str, roots)) or "none is configured: see --export-roots"
        text = f"{directory!r} does not lie below a root for exports and imports ({named})."
        raise Fault(Reason.PATH_NOT_ALLOWED, text)
    return real


def check_outside(directory: Path, hub: Path) -> None:
    """Nothing is written into the cache but by downloads and imports, whatever roots contain it.

    Raises:
        Fault: PATH_NOT_ALLOWED.
    """
    if directory.is_relative_to(os.path.realpath(hub)):
        text = f"{str(directory)!r} lies in the cache itself: give a directory outside of {hub}."
        raise Fault(Reason.PATH_NOT_ALLOWED, text)
