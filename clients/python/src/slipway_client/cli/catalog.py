"""`slipway search` and `info`."""

from collections.abc import Collection, Sequence
from typing import Annotated, Literal

import typer
from rich.text import Text
from slipway.common.v1.variant_pb2 import Variant, WeightFormat
from slipway.registry.v1.repo_pb2 import Gating, Repo, RepoSummary

from slipway_client.cli import format as fmt
from slipway_client.cli.fitting import Place, places_named, places_of
from slipway_client.cli.quantities import parse_count
from slipway_client.cli.session import Session, session, usage
from slipway_client.errors import SlipwayError
from slipway_client.registry import Registry
from slipway_client.specs import repo_and_revision
from slipway_client.words import word

SortWord = Literal["trending", "downloads", "likes", "updated", "created"]
GatedWord = Literal["open-only", "gated-only"]
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
    gated: Annotated[GatedWord | None, typer.Option(help="By whether access has to be asked for.")] = None,
    at_least: Annotated[str, typer.Option("--min-parameters", metavar="COUNT", help="At least so large: 500M.")] = "",
    at_most: Annotated[str, typer.Option("--max-parameters", metavar="COUNT", help="At most so large: 8B.")] = "",
    sort: Annotated[SortWord, typer.Option(help="What comes first.")] = "trending",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
) -> None:
    """Search the Hub for models."""
    current = session(context)
    fewest = usage(lambda: parse_count(at_least)) if at_least else None
    most = usage(lambda: parse_count(at_most)) if at_most else None

    async def work() -> list[RepoSummary]:
        async with current.registry() as registry:
            return await registry.search(
                query,
                author=author,
                task=task,
                library=library,
                tags=tag or (),
                gguf_only=gguf,
                gated=gated or "",
                min_parameters=fewest,
                max_parameters=most,
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
            spare=("LIKES", "TASK", "UPDATED"),
        )
    else:
        current.output.line("nothing found")


def info(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO[@REVISION]", help="The repository.")],
    context_tokens: Annotated[
        int, typer.Option("--context", min=0, help="Tokens of context to estimate memory for; 0 is the usual.")
    ] = 0,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SIZE", help="Memory to fit into, instead of the runner's: 24GB. Repeatable."),
    ] = None,
) -> None:
    """Show a repository: what it is, in which variants it can be had, and which of them fit."""
    current = session(context)
    repo_id, revision = usage(lambda: repo_and_revision(repo))
    asked = usage(lambda: places_named(device or ()))

    async def work() -> tuple[Repo, list[Place], set[str]]:
        async with current.registry() as registry:
            places = asked or await _places(current)
            found = await registry.get_repo(
                repo_id,
                revision,
                devices=[memory for place in places for memory in place.devices],
                context_tokens=context_tokens,
                hf_token=current.settings.hf_token,
            )
            return found, places, set() if current.as_json else await _cached(registry, found)

    found, places, cached = current.run(work)
    if current.as_json:
        current.output.json(found)
    else:
        _show(current, found, places, cached)


async def _places(current: Session) -> list[Place]:
    """The runner's devices; none when it does not answer, since reading a repository does not need it."""
    async with current.runner() as runner:
        try:
            answer = await runner.get_runner(timeout=FIT_DEADLINE)
        except SlipwayError:
            return []
    return places_of(answer.devices)


async def _cached(registry: Registry, repo: Repo) -> set[str]:
    """Names of the variants that the cache has all of; none where it does not say, which reading does not need."""
    try:
        snapshot = (await registry.get_snapshot(repo_id=repo.repo_id, revision=repo.commit)).snapshot
    except SlipwayError:
        return set()
    return {variant.name for variant in snapshot.variants if variant.complete}


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


def _show(current: Session, repo: Repo, places: Sequence[Place], cached: Collection[str]) -> None:
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
    out.line()
    out.table(
        ("VARIANT", "FORMAT", "BITS", "SIZE", "MEMORY", *(place.title.upper() for place in places), ""),
        (_variant_row(variant, places, cached) for variant in repo.variants),
        right=("BITS", "SIZE", "MEMORY"),
        spare=("BITS", "FORMAT"),
    )
    contexts = sorted({variant.memory.context_tokens for variant in repo.variants if variant.HasField("memory")})
    if contexts and contexts[-1]:
        out.line()
        out.line(
            (f"MEMORY is an estimate for {contexts[-1]:,} tokens of context; --context says another number.", "dim")
        )
    if not places:
        out.line(("What fits is not known, since no runner answers; --device 24GB says for how much memory.", "dim"))


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


def _variant_row(variant: Variant, places: Sequence[Place], cached: Collection[str]) -> tuple[str | Text, ...]:
    return (
        variant.name,
        word(WeightFormat, variant.format).lower(),
        f"{variant.bits_per_weight:.1f}" if variant.HasField("bits_per_weight") else "",
        fmt.size(variant.size_bytes),
        fmt.size(variant.memory.total_bytes) if variant.HasField("memory") else "",
        *(Text() if variant.missing else place.verdict(variant) for place in places),
        _remarks(variant, cached),
    )


def _remarks(variant: Variant, cached: Collection[str]) -> Text:
    """What else there is to know: that it is the default, already here, more than text, or not whole."""
    if variant.missing:
        return Text(f"not whole: the repository lacks {variant.missing[0]}", style="yellow")
    words = (
        "default" if variant.default else "",
        "in the cache" if variant.name in cached else "",
        "mmproj" if variant.projector_files else "",
    )
    return Text(", ".join(filter(None, words)), style="dim")
