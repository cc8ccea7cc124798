"""Taking a pin: which files it covers, whether they are there, and the ref that keeps other tools off them."""

from dataclasses import dataclass

from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import EverySelection, Selection, select

from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.files import replace_file
from slipway_registry.cache.snapshot import FileStanding, Snapshot

_SHOWN = 10
"""So many missing files are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What is asked for: without a selection the whole snapshot, whatever of it is there; `ttl` None has no end.

    `refusal` says no to a release while one is asked for, and why.
    """

    repo: RepoId
    revision: Revision
    selection: Selection | None
    holder: str
    claim: str
    ttl: float | None
    refusal: str = ""


def held_files(
    snapshot: Snapshot, selection: Selection | None, *, damaged: Reason = Reason.SNAPSHOT_INCOMPLETE
) -> tuple[FileStanding, ...]:
    """The files that a selection means, all of them there and none known to be damaged; without one, what is there.

    Args:
        damaged: the reason where all are there and some are known to be damaged.

    Raises:
        Fault: VARIANT_NOT_FOUND, SELECTION_EMPTY, SNAPSHOT_INCOMPLETE, `damaged`.
    """
    if selection is None:
        return tuple(standing for standing in snapshot.files if standing.present)
    if isinstance(selection, EverySelection) and not snapshot.listed:
        text = f"Nothing says which files {snapshot.repo} at {snapshot.commit} has: download it to know."
        raise Fault(Reason.SNAPSHOT_INCOMPLETE, text)
    variants = [standing.variant for standing in snapshot.variants]
    chosen = {file.path for file in select(snapshot.listing, variants, selection).files}
    files = tuple(standing for standing in snapshot.files if standing.file.path in chosen)
    if missing := [it.file.path for it in files if not it.sound]:
        named = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        where, count = f"{snapshot.repo} at {snapshot.commit}", str(len(missing))
        if all(it.present for it in files):
            text = f"Damaged in the cache, of {where}: {named}. `slipway cache verify --repair` fetches it again."
            raise Fault(damaged, text, facts={"damaged": count})
        text = f"{where} lacks {named}: download it first."
        raise Fault(Reason.SNAPSHOT_INCOMPLETE, text, facts={"missing": count})
    return files


def keep_off(shelf: BlobShelf, repo: RepoId, commit: Commit) -> None:
    """Write the ref that keeps `hf cache prune` from taking the snapshot for a detached one."""
    paths = RepoPaths(shelf.hub, repo)
    ref = paths.keep_ref(commit)
    if not ref.is_file():
        replace_file(ref, commit.encode(), staging=paths.ingest, modes=shelf.modes)
