"""`slipway pull`, `downloads`, `pause`, `resume` and `cancel`."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import typer
from slipway.registry.v1.download_pb2 import Download, DownloadState

from slipway_client.cli import format as fmt
from slipway_client.cli.display import display
from slipway_client.cli.session import Session, goes_on, session, telling, usage
from slipway_client.cli.steps import download_step
from slipway_client.downloads import FINAL_STATES, select
from slipway_client.specs import repo_and_revision
from slipway_client.watch import OnDisconnect, ignore_disconnect
from slipway_client.words import word

DownloadId = Annotated[str, typer.Argument(metavar="ID", help="The download, as `slipway downloads` lists it.")]


def pull(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO[@REVISION]", help="What to download.")],
    variant: Annotated[str, typer.Option(help="One variant, as `slipway info` lists them: Q4_K_M.")] = "",
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files to take. Repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files to leave out. Repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every file of the repository.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
) -> None:
    """Download a model into the shared cache."""
    current = session(context)
    repo_id, revision = usage(lambda: repo_and_revision(repo))
    selection = usage(
        lambda: select(variant=variant, include=include or (), exclude=exclude or (), everything=everything)
    )

    async def work() -> None:
        async with current.registry() as registry:
            started = await registry.start_download(
                repo_id, revision, selection=selection, hf_token=current.settings.hf_token
            )
            if detach:
                _show(current, started.download)
                return
            latest = first = started.download

            async def following(on_disconnect: OnDisconnect) -> AsyncIterator[Download]:
                nonlocal latest
                async for latest in registry.follow_download(first, started.cursor, on_disconnect=on_disconnect):
                    yield latest

            with goes_on(lambda: _remains(latest)):
                await _follow(current, first, following)

    current.run(work)


def downloads(context: typer.Context) -> None:
    """List downloads, the newest first."""
    current = session(context)

    async def work() -> list[Download]:
        async with current.registry() as registry:
            return await registry.list_downloads()

    found = current.run(work)
    if current.as_json:
        for download in found:
            current.output.json(download)
    elif found:
        current.output.table(
            ("ID", "STATE", "REPOSITORY", "FILES", "DONE", "OF", ""),
            (_row(download) for download in found),
            right=("DONE", "OF"),
        )
    else:
        current.output.line("no downloads; `slipway pull REPO` starts one")


def pause(context: typer.Context, ident: DownloadId) -> None:
    """Stop a download and keep what it has."""
    current = session(context)

    async def work() -> Download:
        async with current.registry() as registry:
            return (await registry.pause_download(ident)).download

    _show(current, current.run(work))


def resume(context: typer.Context, ident: DownloadId) -> None:
    """Go on with a paused download."""
    current = session(context)

    async def work() -> Download:
        async with current.registry() as registry:
            return (await registry.resume_download(ident, hf_token=current.settings.hf_token)).download

    _show(current, current.run(work))


def cancel(
    context: typer.Context,
    ident: DownloadId,
    discard: Annotated[bool, typer.Option("--discard", help="Remove what it has downloaded, too.")] = False,
) -> None:
    """End a download."""
    current = session(context)

    async def work() -> Download:
        async with current.registry() as registry:
            return (await registry.cancel_download(ident, discard_partial=discard)).download

    _show(current, current.run(work))


def short_id(download: Download) -> str:
    """What people type for it."""
    return download.name.removeprefix("downloads/")


def _remains(download: Download) -> str:
    """What is said when the waiting is ended."""
    ident = short_id(download)
    if download.state == DownloadState.DOWNLOAD_STATE_PAUSED:
        return f"the download is paused; `slipway resume {ident}` or `slipway pull` again goes on"
    return f"the download goes on; `slipway cancel {ident}` ends it, `slipway pull` again waits for it"


async def _follow(
    current: Session, download: Download, following: Callable[[OnDisconnect], AsyncIterator[Download]]
) -> None:
    """Waits for the end, showing what happens."""
    if current.as_json:
        async for download in following(ignore_disconnect):
            current.output.json(download)
        return
    began = time.monotonic()
    _title(current, download)
    with display(current.output.console) as shown:
        async for download in following(telling(shown.note)):
            if download.state not in FINAL_STATES:
                shown.show(download_step(download))
        shown.finish()
    progress = download.progress
    there = progress.cached_bytes + progress.resumed_bytes
    current.output.line(
        ("✓ ", "green"),
        ("in the cache", "bold"),
        f": {fmt.size(progress.total_bytes)} in {fmt.seconds(time.monotonic() - began)}",
        f", {fmt.size(there)} of it were there before" if there else "",
    )
    current.output.line((f"  {download.snapshot_path}", "dim"))


def _title(current: Session, download: Download) -> None:
    files = download.files
    facts = [files.variant, fmt.plural(len(files.paths), "file"), fmt.size(files.size_bytes)]
    current.output.line(
        (f"{download.repo_id}@{fmt.commit(download.commit)}", "bold"), "  ", " · ".join(filter(None, facts))
    )
    if files.explanation:
        current.output.line((f"  {files.explanation}", "dim"))


def _show(current: Session, download: Download) -> None:
    """What a verb answers with: the download as it is now."""
    if current.as_json:
        current.output.json(download)
        return
    state = word(DownloadState, download.state)
    current.output.line((short_id(download), "bold"), f" {state} {download.repo_id}@{fmt.commit(download.commit)}")


def _row(download: Download) -> tuple[str, ...]:
    progress, step = download.progress, download_step(download)
    return (
        short_id(download),
        word(DownloadState, download.state),
        f"{download.repo_id}@{fmt.commit(download.commit)}",
        download.files.variant or fmt.plural(progress.total_files, "file"),  # lists leave the paths out
        fmt.size(progress.done_bytes),
        fmt.size(progress.total_bytes),
        step.mark or download.message,
    )
