"""What one backend has to say for itself: what it is made from, and how it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.backends.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build turned out to be; `digest` is what a later run recognises it by."""

    version: str
    digest: str


class Recipe(Protocol):
    """How to install one backend."""

    @property
    def name(self) -> str:
        """The name on the command line and of the directory."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The executables an installation has, relative to it; the first is the backend."""

    @property
    def accepted(self) -> frozenset[str]:
        """The digests of installations that need not be made again."""

    def build(self, into: Path, steps: Steps) -> Built:
        """Install below the empty directory `into`. Raises InstallError."""
