"""What is to be run, as a caller asks for it and as it is compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from slipway_runner.backends.base import Settings, Task, shown_name
from slipway_runner.models.states import RestartPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSource:
    """A repository of the Hub at a branch, tag or commit."""

    repo_id: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSource:
    """A file or directory of this host, absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = RepoSource | PathSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run, and how. Empty strings and None leave the choice to the runner; see `slipway.runner.v1.ModelSpec`.

    Attributes:
        variant, file: at most one of them is set.
        devices: uuids.
        start_timeout: seconds without progress after which a load has stalled; None is the backend's own.
        idle_ttl: seconds without a request after which it is unloaded; None is never.
        load_on_demand: after it was unloaded for being idle or to make room, a request that names it loads it again.
    """

    source: Source
    variant: str = ""
    file: str = ""
    task: Task | None = None
    backend: str = ""
    settings: Settings = field(default_factory=Settings)
    flags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    restart_policy: RestartPolicy = RestartPolicy.ON_FAILURE
    start_timeout: float | None = None
    idle_ttl: float | None = None
    aliases: tuple[str, ...] = ()
    pinned: bool = False
    load_on_demand: bool = False

    @property
    def default_id(self) -> str:
        """The id of a load that names none: the last part of the repository's name or the path."""
        if isinstance(self.source, RepoSource):
            return self.source.repo_id.rpartition("/")[2]
        return self.source.path.name


def difference(have: Spec, want: Spec) -> str:
    """What differs, in words: `variant Q4_K_M, asked for Q8_0; aliases …`. Empty when the specs are equal.

    Both are to be compared with their defaults filled in and their revision resolved. The order of devices counts (it
    is the order of tensor-parallel ranks), that of aliases does not.
    """
    found = [*_differing(have, want, without=("settings", "aliases")), *_differing(have.settings, want.settings)]
    if set(have.aliases) != set(want.aliases):
        found.append(f"aliases {_told(have.aliases)}, asked for {_told(want.aliases)}")
    return "; ".join(found)


def _differing(have: Any, want: Any, without: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{shown_name(name)} {_told(mine)}, asked for {_told(theirs)}"
        for name in fields(have)
        if name.name not in without and (mine := getattr(have, name.name)) != (theirs := getattr(want, name.name))
    ]


def _told(value: object) -> str:
    match value:
        case None | "" | ():
            return "unset"
        case tuple():
            return ",".join(map(str, value))
        case Mapping():
            return " ".join(f"{name}={setting}" for name, setting in sorted(value.items())) or "unset"
        case _:
            return str(value)
