"""`slipway cache verify`."""

import time
from typing import Annotated

import typer
from slipway.registry.v1.snapshot_pb2 import FindingKind, Snapshot
from slipway.registry.v1.snapshot_service_pb2 import VerifySnapshotResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.naming import label, named
from slipway_client.cli.display import display
from slipway_client.cli.session import Session, goes_on, session
from slipway_client.cli.steps import Step, bytes_step
from slipway_client.connection import Stream
from slipway_client.errors import Damaged
from slipway_client.registry import Registry

_HASHING_NOTE = "nothing was changed; what was found right until now stays known as verified"
_FETCHING_NOTE = "what it found damaged is still being fetched: `slipway downloads` shows that"


def verify(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="What to verify: REPO or REPO@REVISION.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole cache.")] = False,
    variant: Annotated[str, typer.Option(help="Only the files of this variant.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Fetch again what is damaged or missing.")] = False,
) -> None:
    """Hash what is in the cache, and tell what is not as it should be."""
    current = session(context)
    if bool(models) == everything:
        raise typer.BadParameter("name what to verify, or give --all")

    async def work() -> list[tuple[Snapshot, int]]:
        async with current.registry() as registry:
            found = await named(registry, models) if models else await registry.list_snapshots()
            return [(snapshot, await _verify(current, registry, snapshot, variant, repair)) for snapshot in found]

    outcome = current.run(work)
    wrong = [(snapshot, count) for snapshot, count in outcome if count]
    if wrong:
        total = sum(count for _, count in wrong)
        where = shown.list_words([label(snapshot) for snapshot, _ in wrong])
        again = " ".join(label(snapshot) for snapshot, _ in wrong)
        error = Damaged("HASH_MISMATCH", f"{fmt.plural(total, 'file')} of {where} damaged or missing")
        if not repair:
            error.add_note(f"`slipway cache verify {again} --repair` fetches again what is wrong")
        raise error
    if not outcome and not current.as_json:
        current.output.line("the cache is empty")


async def _verify(current: Session, registry: Registry, snapshot: Snapshot, variant: str, repair: bool) -> int:
    """Verifies one; how many files stay wrong."""
    stream = registry.verify_snapshot(
        snapshot.name, variant=variant, repair=repair, hf_token=current.settings.hf_token if repair else ""
    )
    notes = [_HASHING_NOTE]
    with goes_on(lambda: notes[-1]):
        try:
            if current.as_json:
                return await _write(current, stream)
            return await _show(current, snapshot, stream, notes, repair=repair)
        finally:
            stream.close()


async def _write(current: Session, stream: Stream[VerifySnapshotResponse]) -> int:
    """A line of JSON for each message."""
    still_wrong = 0
    async for answer in stream:
        current.output.json(answer)
        still_wrong = answer.open_findings
    return still_wrong


async def _show(
    current: Session,
    snapshot: Snapshot,
    stream: Stream[VerifySnapshotResponse],
    notes: list[str],
    *,
    repair: bool,
) -> int:
    """A bar, a line for each finding, and one at the end."""
    began = time.monotonic()
    out = current.output
    out.line((label(snapshot), "bold"))
    wrong, repaired, still_wrong = 0, 0, 0
    with display(out.console) as progress:
        async for answer in stream:
            if answer.HasField("progress"):
                progress.show(_hashing(answer, time.monotonic() - began))
            for found in answer.findings:
                progress.line(shown.finding(found))
                wrong += found.kind != FindingKind.FINDING_KIND_REPAIRED
                repaired += found.kind == FindingKind.FINDING_KIND_REPAIRED
            still_wrong = answer.open_findings
            if repair and wrong and _is_hashed(answer):
                notes.append(_FETCHING_NOTE)
                progress.show(Step(key="fetch", doing="fetching again", done="fetched again"))
        progress.finish()
    if still_wrong:
        return still_wrong
    mended = f", now that {fmt.plural(repaired, 'file')} came anew" if repaired else ""
    out.line(("✓ ", "green"), ("as it should be", "bold"), mended)
    return 0


def _hashing(answer: VerifySnapshotResponse, elapsed: float) -> Step:
    progress = answer.progress
    return bytes_step(
        "hash",
        "hashing",
        "hashed",
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        elapsed=elapsed,
    )


def _is_hashed(answer: VerifySnapshotResponse) -> bool:
    """Whether only repairs are left."""
    return answer.HasField("progress") and answer.progress.done_bytes >= answer.progress.total_bytes
