"""`slipway search` and `info`."""

from typing import Annotated, Literal

import typer
from rich.text import Text
from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.common.v1.variant_pb2 import Variant, WeightFormat
from slipway.registry.v1.repo_pb2 import Gating, Repo, RepoSummary

from slipway_client.cli import format as fmt
from slipway_client.cli.session import Session, session, usage
from slipway_client.errors import SlipwayError
from slipway_client.specs import repo_and_revision
from slipway_client.words import word

SortWord = Literal["trending", "downloads", "likes", "updated", "created"]
FIT_DEADLINE = 2.0
"""Seconds to ask the runner for its devices; without an answer nothing is said about what fits."""


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words of the name.")] = "",
    author: Annotated[str, typer.Option(help="Only of this user or organisation.")] = "",
    task: Annotated[str, typer.Option(help="Only with this pipeline tag: text-generation …")] = "",
    library: Annotated[str, typer.Option(help="Only for this library: transformers …")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag. Repeatable.")] = None,
    gguf: Annotated[bool, typer.Option("--gguf", help="Only with GGUF files.")] = False,
    sort: Annotated[SortWord, typer.Option(help="What comes first.")] = "trending",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
) -> None:
    """Search the Hub for models."""
    current = session(context)

    async def work() -> list[RepoSummary]:
        async with current.registry() as registry:
            return await registry.search(
                query,
                author=author,
                task=task,
                library=library,
                tags=tag or (),
                gguf_only=gguf,
                sort=sort,
                limit=limit,
                hf_token=current.settings.hf_token,
            )

    found = current.run(work)
    if current.as_json:
        for summary in found:
            current.output.json(summary)
    elif found:
        current.output.table(
            ("REPOSITORY", "TASK", "PARAMETERS", "DOWNLOADS", "LIKES", "UPDATED", ""),
            (_row(summary) for summary in found),
            right=("PARAMETERS", "DOWNLOADS", "LIKES"),
        )
    else:
        current.output.line("nothing found")


def info(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO[@REVISION]", help="The repository.")],
    context_tokens: Annotated[
        int, typer.Option("--context", min=0, help="Tokens of context to estimate memory for; 0 is the usual.")
    ] = 0,
) -> None:
    """Show a repository: what it is, and in which variants it can be had."""
    current = session(context)
    repo_id, revision = usage(lambda: repo_and_revision(repo))

    async def work() -> Repo:
        async with current.registry() as registry:
            return await registry.get_repo(
                repo_id,
                revision,
                devices=await _devices(current),
                context_tokens=context_tokens,
                hf_token=current.settings.hf_token,
            )

    found = current.run(work)
    if current.as_json:
        current.output.json(found)
    else:
        _show(current, found)


async def _devices(current: Session) -> list[DeviceMemory]:
    """The runner's devices; none when it does not answer, since reading a repository does not need it."""
    async with current.runner() as runner:
        try:
            answer = await runner.get_runner(timeout=FIT_DEADLINE)
        except SlipwayError:
            return []
    return [device.memory for device in answer.devices if not device.fault]


def _row(summary: RepoSummary) -> tuple[str, ...]:
    marks = [
        "private" if summary.private else "",
        "gated" if summary.gating in (Gating.GATING_AUTOMATIC, Gating.GATING_MANUAL) else "",
        "gguf" if "gguf" in summary.tags else "",
    ]
    return (
        summary.repo_id,
        summary.pipeline_tag,
        fmt.count(summary.parameters) if summary.HasField("parameters") else "",
        fmt.count(summary.downloads),
        fmt.count(summary.likes),
        f"{summary.update_time.ToDatetime():%Y-%m-%d}" if summary.HasField("update_time") else "",
        " ".join(filter(None, marks)),
    )


def _show(current: Session, repo: Repo) -> None:
    out = current.output
    out.line(
        (repo.repo_id, "bold"), f"@{fmt.commit(repo.commit)}", (" (from the cache)", "dim") if repo.from_cache else ""
    )
    for facts in (_about(repo), _shape(repo)):
        if facts:
            out.line("  " + " · ".join(facts))
    if not repo.variants:
        out.line("  no weights that a backend knows")
        return
    fits = any(variant.fits for variant in repo.variants)
    columns = ("VARIANT", "FORMAT", "BITS", "SIZE", "MEMORY", "FITS" if fits else "", "")
    out.table(columns, (_variant_row(variant) for variant in repo.variants), right=("BITS", "SIZE", "MEMORY"))


def _about(repo: Repo) -> list[str]:
    """Whose and what for."""
    summary = repo.summary
    gated = summary.gating in (Gating.GATING_AUTOMATIC, Gating.GATING_MANUAL)
    facts = (
        summary.pipeline_tag,
        summary.library,
        repo.license,
        "gated: ask for access on its page" if gated else "",
        f"{fmt.count(summary.downloads)} downloads",
        f"{fmt.count(summary.likes)} likes",
    )
    return [fact for fact in facts if fact]


def _shape(repo: Repo) -> list[str]:
    """What it is made of."""
    config = repo.config
    facts = (
        config.architecture,
        f"{fmt.count(config.parameters)} parameters" if config.HasField("parameters") else "",
        f"{config.context_length:,} tokens of context" if config.HasField("context_length") else "",
        "runs code of its own" if config.remote_code else "",
        fmt.plural(repo.file_count, "file"),
        fmt.size(repo.total_bytes),
    )
    return [fact for fact in facts if fact]


def _variant_row(variant: Variant) -> tuple[str | Text, ...]:
    fitting = [fit for fit in variant.fits if fit.fits]
    closest = max(variant.fits, key=lambda fit: fit.headroom_bytes, default=None)
    fit = Text()
    if fitting:
        fit = Text("yes", style="green")
    elif closest is not None:
        fit = Text(f"{fmt.size(-closest.headroom_bytes)} short", style="yellow")
    return (
        variant.name,
        word(WeightFormat, variant.format).lower(),
        f"{variant.bits_per_weight:.1f}" if variant.HasField("bits_per_weight") else "",
        fmt.size(variant.size_bytes),
        fmt.size(variant.memory.total_bytes) if variant.HasField("memory") else "",
        fit,
        Text("default" if variant.default else "", style="dim"),
    )
