"""Whether a cache can have symbolic links: not every network or removable file system does."""

import secrets
from pathlib import Path


def symlinks_work(directory: Path) -> bool:
    """Try it, in a directory that exists and may be written."""
    probe = directory / f"slipway-probe.{secrets.token_hex(4)}"
    try:
        probe.symlink_to("nowhere")
        return probe.is_symlink()
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
