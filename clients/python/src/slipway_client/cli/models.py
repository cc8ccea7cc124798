"""`slipway load`, `unload`, `activate`, `ps` and `logs`."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from rich.text import Text
from slipway.common.v1.task_pb2 import Task
from slipway.runner.v1.model_pb2 import BackendSettings, Model, ModelState
from slipway.runner.v1.model_service_pb2 import LoadModelResponse

from slipway_client.cli import format as fmt
from slipway_client.cli.display import display
from slipway_client.cli.output import plain
from slipway_client.cli.quantities import parse_duration
from slipway_client.cli.session import Session, goes_on, session, telling, usage
from slipway_client.cli.steps import model_step
from slipway_client.runner import Runner
from slipway_client.specs import model_spec, repo_and_revision
from slipway_client.watch import OnDisconnect, ignore_disconnect
from slipway_client.words import word

TaskWord = Literal["generate", "embed", "rerank"]
ModelId = Annotated[str, typer.Argument(metavar="ID", help="The model, as `slipway ps` lists it.")]

ENDPOINTS = {Task.TASK_GENERATE: "chat/completions", Task.TASK_EMBED: "embeddings", Task.TASK_RERANK: "rerank"}
"""Where the gateway serves each task, below a model's endpoint."""

SETTLED = {ModelState.MODEL_STATE_LOADED, ModelState.MODEL_STATE_ERROR, ModelState.MODEL_STATE_UNLOADED}

_COLOURS = {
    ModelState.MODEL_STATE_LOADED: "green",
    ModelState.MODEL_STATE_ERROR: "red",
    ModelState.MODEL_STATE_UNHEALTHY: "yellow",
    ModelState.MODEL_STATE_RESTARTING: "yellow",
}


def load(
    context: typer.Context,
    repo: Annotated[
        str, typer.Argument(metavar="REPO[@REVISION]", help="What to run, or a path on the runner's host.")
    ],
    ident: Annotated[str, typer.Option("--id", help="A name for it; by default the repository's last part.")] = "",
    variant: Annotated[str, typer.Option(help="The variant to run, as `slipway info` lists them: Q4_K_M.")] = "",
    backend: Annotated[str, typer.Option(help="llama-server, vllm, transformers … instead of the one that fits.")] = "",
    task: Annotated[TaskWord | None, typer.Option(help="What it is served for, instead of what its files say.")] = None,
    context_length: Annotated[
        int | None,
        typer.Option("--context", metavar="TOKENS", min=1, help="Its context length; by default the backend's."),
    ] = None,
    flag: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="A flag of the backend that the runner allows.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Serve it under this name, too.")] = None,
    evict: Annotated[bool, typer.Option("--evict", help="Unload idle models to make room.")] = False,
    replaces: Annotated[
        str, typer.Option(metavar="ID", help="Take over from this model once loaded, which is then unloaded.")
    ] = "",
    unload_first: Annotated[
        bool, typer.Option("--unload-first", help="Where both do not fit, unload the replaced one before.")
    ] = False,
    idle_ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="Unload it after so long without a request: 30m. [never]")
    ] = "",
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Load it again for a request, once it was idle or had to make room.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until it is loaded.")] = False,
) -> None:
    """Load a model, downloading it first if need be."""
    current = session(context)
    repo_id, revision = ("", "") if repo.startswith("/") else usage(lambda: repo_and_revision(repo))
    if unload_first and not replaces:
        raise typer.BadParameter("--unload-first needs --replaces ID: say which model is to go")
    spec = model_spec(
        repo_id,
        revision,
        path="" if repo_id else repo,
        variant=variant,
        backend=backend,
        task=task or "",
        settings=BackendSettings(context_length=context_length) if context_length else None,
        flags={name: value for name, _, value in (text.partition("=") for text in flag or ())},
        aliases=alias or (),
        idle_ttl=usage(lambda: parse_duration(idle_ttl)) if idle_ttl else None,
        load_on_demand=on_demand,
    )

    async def work() -> None:
        async with current.runner() as runner:
            answer = await runner.load_model(
                spec, model_id=ident, evict=evict, replaces=replaces, unload_first=unload_first
            )
            if detach:
                _show(current, answer.model)
                return
            name = short_id(answer.model)
            with goes_on(f"the load goes on; `slipway unload {name}` ends it, `slipway watch {name}` shows it"):
                await _follow_load(current, runner, answer)

    current.run(work)


def unload(
    context: typer.Context,
    ident: ModelId,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until it is gone.")] = False,
) -> None:
    """Stop a model; it is gone when its processes are and its memory is free."""
    current = session(context)

    async def work() -> None:
        async with current.runner() as runner:
            if detach:
                _show(current, (await runner.unload_model(ident)).model)
                return
            began = time.monotonic()
            with goes_on(f"unloading goes on; `slipway watch {ident}` shows it"):
                await _follow(current, lambda tell: runner.unload(ident, on_disconnect=tell))
            if not current.as_json:
                current.output.line(("✓ ", "green"), f"{ident} is gone after {fmt.seconds(time.monotonic() - began)}")

    current.run(work)


def activate(
    context: typer.Context,
    ident: ModelId,
    task: Annotated[TaskWord | None, typer.Option(help="For this task; by default the model's own.")] = None,
) -> None:
    """Send requests that name no model to this one."""
    current = session(context)

    async def work() -> None:
        async with current.runner() as runner:
            answer = await runner.set_active_model(ident, task=task or "")
        if current.as_json:
            current.output.json(answer)
            return
        tasks = ", ".join(word(Task, value).lower() for value in answer.model.active_tasks)
        before = answer.previous.removeprefix("models/")
        current.output.line(
            ("✓ ", "green"),
            f"{short_id(answer.model)} is active for {tasks or 'its task'}",
            f" instead of {before}" if before and before != short_id(answer.model) else "",
        )

    current.run(work)


def ps(context: typer.Context) -> None:
    """List the runner's models."""
    current = session(context)

    async def work() -> list[Model]:
        async with current.runner() as runner:
            return await runner.list_models()

    found = current.run(work)
    if current.as_json:
        for model in found:
            current.output.json(model)
    elif found:
        now = datetime.now(UTC)
        current.output.table(
            ("ID", "STATE", "ACTIVE FOR", "BACKEND", "MODEL", "MEMORY", "SINCE", ""),
            (_row(model, now) for model in found),
            right=("MEMORY", "SINCE"),
        )
    else:
        current.output.line("no models; `slipway load REPO` loads one")


def logs(
    context: typer.Context,
    ident: ModelId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
) -> None:
    """Show what a model's backend has written: the last 64 KiB, and with --follow what comes."""
    current = session(context)

    async def work() -> None:
        async with current.runner() as runner:
            async for piece in runner.read_logs(ident, follow=follow):
                if current.as_json:
                    current.output.json(piece)
                else:
                    current.output.console.file.write(plain(piece.text))
                    current.output.console.file.flush()

    current.run(work)


def short_id(model: Model) -> str:
    """What people type for it."""
    return model.name.removeprefix("models/")


def describe(model: Model) -> str:
    """What it is: repository and commit, variant, backend."""
    source = model.spec.path or model.spec.repo.repo_id
    if model.commit:
        source += f"@{fmt.commit(model.commit)}"
    return " · ".join(filter(None, (source, model.variant, model.backend)))


async def _follow_load(current: Session, runner: Runner, answer: LoadModelResponse) -> None:
    """Waits until it is loaded, showing what happens, and says where it answers."""
    began = time.monotonic()
    if not current.as_json:
        current.output.line((short_id(answer.model), "bold"), "  ", describe(answer.model))
        for name in answer.evicted:
            current.output.line((f"  {name.removeprefix('models/')} is unloaded to make room", "dim"))
    model = await _follow(current, lambda tell: runner.follow_load(answer.model, answer.cursor, on_disconnect=tell))
    if current.as_json:
        return
    if model is answer.model:
        current.output.line(("✓ ", "green"), ("it was loaded already", "bold"), _active(model))
    else:
        took = fmt.seconds(time.monotonic() - began)
        current.output.line(("✓ ", "green"), ("loaded", "bold"), f" in {took}", _active(model))
    if model.endpoint:
        task = model.spec.task or Task.TASK_GENERATE
        name = short_id(model)
        current.output.line(f"  POST {model.endpoint}/{ENDPOINTS[task]}", (" with ", "dim"), f'"model": "{name}"')
        if task == Task.TASK_GENERATE:
            current.output.line(f'  slipway chat {name} "Hello"')


async def _follow(current: Session, versions: Callable[[OnDisconnect], AsyncIterator[Model]]) -> Model:
    """Shows every version of a model; returns the last."""
    if current.as_json:
        async for model in versions(ignore_disconnect):
            current.output.json(model)
        return model
    with display(current.output.console) as shown:
        async for model in versions(telling(shown.note)):
            if model.state not in SETTLED:
                shown.show(model_step(model))
        shown.finish()
    return model


def _show(current: Session, model: Model) -> None:
    """What a verb answers with: the model as it is now."""
    if current.as_json:
        current.output.json(model)
    else:
        current.output.line((short_id(model), "bold"), f" {word(ModelState, model.state)} ", describe(model))


def _active(model: Model) -> str:
    tasks = ", ".join(word(Task, task).lower() for task in model.active_tasks)
    return f", active for {tasks}" if tasks else ""


def _row(model: Model, now: datetime) -> tuple[str | Text, ...]:
    step = model_step(model)
    state = word(ModelState, model.state)
    if model.state == ModelState.MODEL_STATE_LOADING:
        state = f"{state} {model.load_progress.fraction:.0%}"
    planned = 0 if model.state == ModelState.MODEL_STATE_ERROR else model.planned_bytes  # a failed one holds nothing
    since = model.update_time.ToDatetime(UTC)
    return (
        short_id(model),
        Text(state, style=_COLOURS.get(model.state, "")),
        ", ".join(word(Task, task).lower() for task in model.active_tasks),
        model.backend,
        describe(model).removesuffix(f" · {model.backend}"),
        fmt.size(planned) if planned else "",
        fmt.seconds((now - since).total_seconds()) if model.HasField("update_time") else "",
        step.mark or model.message,
    )
