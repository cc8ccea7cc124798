"""What we create in a cache: its permissions, and where unfinished work lies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import BlobId


@dataclass(frozen=True, slots=True)
class Modes:
    """Permission bits of what we create; fixed once at start, because the umask belongs to the whole process."""

    file: int
    directory: int

    @classmethod
    def from_umask(cls) -> Self:
        """What the process's umask leaves. Call before other threads run: the umask can only be read by setting it."""
        umask = os.umask(0o022)
        os.umask(umask)
        return cls(file=0o666 & ~umask, directory=0o777 & ~umask)

    @classmethod
    def group_shared(cls) -> Self:
        """A cache that a group shares: new directories hand their group on (setgid)."""
        return cls(file=0o664, directory=0o2775)


def partial_directory(repo: RepoPaths, blob: BlobId) -> Path:
    """The directory of a blob on its way, on its final file system. `hf cache rm` may take it at any time."""
    return repo.ingest / blob
