"""Which snapshots a MODEL of the command line means: `REPO`, `REPO@REVISION` or `snapshots/ID`."""

import difflib
from collections.abc import Iterable, Sequence

import typer
from slipway.registry.v1.snapshot_pb2 import Snapshot

from slipway_client.cli import format as fmt
from slipway_client.cli.session import usage
from slipway_client.errors import NotFound
from slipway_client.registry import Registry
from slipway_client.specs import repo_and_revision

SHORTEST_COMMIT = 7
"""Digits of a commit that have to be given at least, as git shows them."""

MAIN = "main"


async def named(registry: Registry, models: Iterable[str]) -> list[Snapshot]:
    """The snapshots that these mean, each once, without their files; a REPO means all of its snapshots.

    Raises:
        SlipwayError: SNAPSHOT_NOT_FOUND, saying what there is instead.
        typer.BadParameter: one is not written as a MODEL.
    """
    found: dict[str, Snapshot] = {}
    for model in models:
        found |= {snapshot.name: snapshot for snapshot in await _of(registry, model)}
    return list(found.values())


async def the_one(registry: Registry, model: str) -> Snapshot:
    """The snapshot that a MODEL means where there can be only one: of a REPO that of `main`, or the only one.

    Raises:
        SlipwayError, typer.BadParameter: as `named`; also where REPO means several.
    """
    try:
        found = await _of(registry, model)
    except NotFound as error:
        error.add_note(f"`slipway pull {model}` downloads it")
        raise
    chosen = found if len(found) == 1 else matching(found, MAIN)
    if len(chosen) != 1:
        which = ", ".join(f"{snapshot.repo_id}@{revision(snapshot)}" for snapshot in found)
        raise typer.BadParameter(f"{model} has several snapshots in the cache; say which: {which}")
    return chosen[0]


def matching(snapshots: Sequence[Snapshot], wanted: str) -> list[Snapshot]:
    """Those that a revision means: a ref of theirs, else the beginning of a commit that only one of them has."""
    by_ref = [snapshot for snapshot in snapshots if wanted in snapshot.refs]
    if by_ref or len(wanted) < SHORTEST_COMMIT:
        return by_ref
    by_commit = [snapshot for snapshot in snapshots if snapshot.commit.startswith(wanted)]
    return by_commit if len(by_commit) == 1 else []


def label(snapshot: Snapshot) -> str:
    """A snapshot as messages name it, and as a MODEL may be written: `org/model@1a2b3c4`."""
    return f"{snapshot.repo_id}@{fmt.commit(snapshot.commit)}"


def revision(snapshot: Snapshot) -> str:
    """A branch or tag of it, else the beginning of its commit."""
    return snapshot.refs[0] if snapshot.refs else fmt.commit(snapshot.commit)


async def _of(registry: Registry, model: str) -> list[Snapshot]:
    if model.startswith("snapshots/"):
        found_by_name = (await registry.get_snapshot(model)).snapshot
        found_by_name.ClearField("files")
        return [found_by_name]
    repo_id, wanted = usage(lambda: repo_and_revision(model))
    there = await registry.list_snapshots(repo_id=repo_id)
    if not there:
        raise NotFound("SNAPSHOT_NOT_FOUND", await _nothing_of(registry, repo_id))
    found = matching(there, wanted) if wanted else there
    if not found:
        has = ", ".join(f"{fmt.commit(it.commit)} ({', '.join(it.refs) or 'no ref'})" for it in there)
        raise NotFound("SNAPSHOT_NOT_FOUND", f"the cache has no {repo_id} at {wanted}; of {repo_id} it has {has}")
    return found


async def _nothing_of(registry: Registry, repo_id: str) -> str:
    known = {snapshot.repo_id.lower(): snapshot.repo_id for snapshot in await registry.list_snapshots()}
    close = difflib.get_close_matches(repo_id.lower(), known, n=1)
    return f"nothing of {repo_id} is in the cache" + (f"; did you mean {known[close[0]]}?" if close else "")
