"""`slipway cache export` and `import`: real files out of the cache, and into it."""

import time
from typing import Annotated

import typer
from slipway.registry.v1.snapshot_pb2 import FindingKind, Snapshot
from slipway.registry.v1.snapshot_service_pb2 import ExportSnapshotResponse, ImportSnapshotResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.naming import label, the_one
from slipway_client.cli.display import display
from slipway_client.cli.session import Session, goes_on, session, usage
from slipway_client.cli.steps import Step, bytes_step
from slipway_client.connection import Stream
from slipway_client.downloads import select
from slipway_client.errors import AccessDenied, Damaged
from slipway_client.specs import repo_and_revision

_WHERE = "On the registry's host, absolute, below one of its --export-roots."


def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to export: REPO or REPO@REVISION.")],
    directory: Annotated[str, typer.Argument(metavar="DIRECTORY", help=f"{_WHERE} Made if it is not there.")],
    variant: Annotated[str, typer.Option(help="Only this variant, with what belongs to it.")] = "",
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files to take. Repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files to leave out. Repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every file of the commit.")] = False,
) -> None:
    """Write a model as real files into a plain directory."""
    current = session(context)
    selection = usage(
        lambda: select(variant=variant, include=include or (), exclude=exclude or (), everything=everything)
    )

    async def work() -> None:
        async with current.registry() as registry:
            snapshot = await the_one(registry, model)
            stream = registry.export_snapshot(snapshot.name, directory, selection=selection)
            note = f"files that were whole by then are in {directory}; the same command writes all of them"
            with goes_on(note):
                try:
                    await _export(current, snapshot, directory, stream)
                except AccessDenied as error:
                    raise _explained(error) from None
                finally:
                    stream.close()

    current.run(work)


def import_(
    context: typer.Context,
    repo: Annotated[
        str,
        typer.Argument(metavar="REPO[@REVISION]", help="Whose files they are; its commit says which hash each has."),
    ],
    directory: Annotated[str, typer.Argument(metavar="DIRECTORY", help=f"{_WHERE} It is only read.")],
) -> None:
    """Take a directory of real files into the cache, each by its hash."""
    current = session(context)
    repo_id, revision = usage(lambda: repo_and_revision(repo))

    async def work() -> ImportSnapshotResponse:
        async with current.registry() as registry:
            stream = registry.import_snapshot(repo_id, directory, revision=revision, hf_token=current.settings.hf_token)
            with goes_on("nothing of it is in the cache unless it was just done; the same command begins anew"):
                try:
                    return await _import(current, repo, stream)
                except AccessDenied as error:
                    raise _explained(error) from None
                finally:
                    stream.close()

    answer = current.run(work)
    wrong = [found for found in answer.findings if found.kind != FindingKind.FINDING_KIND_MISSING]
    if wrong:
        raise Damaged(
            "HASH_MISMATCH",
            f"{fmt.plural(len(wrong), 'file')} of {directory} "
            f"{'is' if len(wrong) == 1 else 'are'} not what {label(answer.snapshot)} has; the others are in the cache",
        )


def _explained(error: AccessDenied) -> AccessDenied:
    """With where the directory has to be, if that is what is wrong."""
    if error.reason == "PATH_NOT_ALLOWED":
        error.add_note("the directory is one of the registry's host: absolute, and below one of its --export-roots")
    return error


async def _export(current: Session, snapshot: Snapshot, directory: str, stream: Stream[ExportSnapshotResponse]) -> None:
    began = time.monotonic()
    answer = ExportSnapshotResponse()
    if current.as_json:
        async for answer in stream:
            current.output.json(answer)
        return
    current.output.line((label(snapshot), "bold"))
    with display(current.output.console) as progress:
        async for answer in stream:
            progress.show(_copying("writing", "written", answer, time.monotonic() - began))
        progress.finish()
    current.output.line(
        ("✓ ", "green"),
        ("exported", "bold"),
        f": {fmt.plural(answer.file_count, 'file')}, {fmt.size(answer.total_bytes)} "
        f"in {fmt.seconds(time.monotonic() - began)}",
    )
    current.output.line((f"  {directory}", "dim"))


async def _import(current: Session, repo: str, stream: Stream[ImportSnapshotResponse]) -> ImportSnapshotResponse:
    """Shows it; the last answer, which has the snapshot."""
    began = time.monotonic()
    answer = ImportSnapshotResponse()
    if current.as_json:
        async for answer in stream:
            current.output.json(answer)
        return answer
    current.output.line((repo, "bold"))
    with display(current.output.console) as progress:
        async for answer in stream:
            if answer.total_bytes:  # else it has yet to look what there is
                progress.show(_copying("hashing and copying", "taken in", answer, time.monotonic() - began))
        progress.finish()
    for found in answer.findings:
        current.output.line(*_left_out(found.path, found.kind, found.detail))
    snapshot = answer.snapshot
    current.output.line(
        ("✓ ", "green"), ("in the cache", "bold"), f": {label(snapshot)} has ", shown.contents(snapshot)
    )
    current.output.line((f"  {snapshot.path}", "dim"))
    return answer


def _left_out(path: str, kind: FindingKind.ValueType, detail: str) -> tuple[str | tuple[str, str], ...]:
    if kind == FindingKind.FINDING_KIND_MISSING:
        return ("• ", "yellow"), f"{path}  ", (f"left out: {detail}", "dim")
    why = detail or "its hash is not that of the commit's file"
    return ("✗ ", "red"), f"{path}  ", (f"left out: {why}", "red")


def _copying(doing: str, done: str, answer: ExportSnapshotResponse | ImportSnapshotResponse, elapsed: float) -> Step:
    return bytes_step(doing, doing, done, done_bytes=answer.done_bytes, total_bytes=answer.total_bytes, elapsed=elapsed)
