"""What a prune takes, decided before anything is touched: pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from slipway_service.weights.names import Commit, RepoId

from slipway_registry.cache.records import Key
from slipway_registry.cache.scan import RepoContents
from slipway_registry.cache.snapshot import Snapshot
from slipway_registry.cache.weigh import Scales, names_lost


class PruneReason(StrEnum):
    """Why something goes; names as in `slipway.registry.v1.PruneReason`."""

    QUOTA = "QUOTA"
    AGE = "AGE"
    ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that goes: a snapshot, or (without `commit`) what no snapshot has. `idle` in seconds."""

    repo: RepoId
    commit: Commit | None
    freed_bytes: int
    reason: PruneReason
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to keep to; None for no such rule. Bytes, and seconds since the last use."""

    quota: int | None = None
    unused_for: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The items in the order in which they go, and how many snapshots stay only because they are held."""

    items: tuple[Item, ...]
    pinned_count: int


def plan_prune(
    repos: Collection[RepoContents],
    snapshots: Iterable[Snapshot],
    rules: Rules,
    *,
    held: Collection[Key],
    wanted: Mapping[RepoId, Collection[str]],
    other_bytes: int,
    now: float,
) -> Plan:
    """Least recently used first, never anything held, each content counted once.

    Args:
        repos: as they are at this moment.
        held: snapshots that are pinned or being downloaded.
        wanted: blobs that downloads under way count on, which stay whatever links them.
        other_bytes: what else counts against the quota: partial files that stay.
    """
    contents = {it.repo: it for it in repos}
    scales = Scales(repos)
    gone: dict[RepoId, set[Commit]] = {}
    taken: dict[RepoId, set[str]] = {}
    items, pinned = [], 0
    for snapshot in sorted(snapshots, key=lambda it: (it.record.use_time, it.name)):
        idle = max(0.0, now - snapshot.record.use_time)
        reason = _reason(rules, idle, scales.total + other_bytes)
        if reason is None or snapshot.commit not in contents[snapshot.repo].snapshots:
            continue
        if (snapshot.repo, snapshot.commit) in held:
            pinned += 1
            continue
        before = gone.setdefault(snapshot.repo, set())
        done = taken.setdefault(snapshot.repo, set())
        stay = {*done, *wanted.get(snapshot.repo, ())}
        loss = names_lost(contents[snapshot.repo], snapshot.commit, gone=before, wanted=stay)
        before.add(snapshot.commit)
        done |= loss.blobs
        freed = scales.lose(loss.names)
        items.append(Item(repo=snapshot.repo, commit=snapshot.commit, freed_bytes=freed, reason=reason, idle=idle))
    return Plan(items=tuple(items), pinned_count=pinned)


def _reason(rules: Rules, idle: float, total: int) -> PruneReason | None:
    if rules.unused_for is not None and idle >= rules.unused_for:
        return PruneReason.AGE
    return PruneReason.QUOTA if rules.quota is not None and total > rules.quota else None
