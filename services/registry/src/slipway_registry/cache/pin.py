"""Someone's claim on files of a snapshot."""

from collections.abc import Collection
from dataclasses import dataclass

from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.snapshot import snapshot_name

DEFAULT_TTL = 86_400.0
"""Seconds that a pin holds unless renewed: longer than a registry is ever away for."""

MAX_TTL = 30 * 86_400.0
"""Seconds; who needs files for longer renews, or keeps them without an end."""

MAX_TEXT = 256
"""Characters of a holder and of a claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Holder, claim, repository and commit together are unique. Times in seconds since 1970.

    Attributes:
        paths: what it covers; none is the whole snapshot.
        expire_time: when it ends unless renewed; None for an operator's keep.
        release_requested: someone waits for it to end, to delete the snapshot. Not stored: who waited is gone with
            the process.
        refusal: why the holder does not let go although it is asked; empty while it has not said no. Not stored.
    """

    id: str
    holder: str
    claim: str
    repo: RepoId
    commit: Commit
    paths: tuple[str, ...] = ()
    expire_time: float | None
    create_time: float
    release_requested: bool = False
    refusal: str = ""

    @property
    def name(self) -> str:
        """`pins/{id}`."""
        return f"pins/{self.id}"

    @property
    def kept(self) -> bool:
        """Whether it is an operator's keep: without an end, and with nobody to ask."""
        return self.expire_time is None

    @property
    def firm(self) -> bool:
        """Whether waiting for its end is of no use."""
        return self.kept or bool(self.refusal)

    @property
    def snapshot(self) -> str:
        """The name of what it holds."""
        return snapshot_name(self.repo, self.commit)

    def covers(self, paths: Collection[str] | None) -> bool:
        """Whether it holds any of these files of its snapshot; None stands for all of them."""
        return paths is None or not self.paths or not set(paths).isdisjoint(self.paths)
