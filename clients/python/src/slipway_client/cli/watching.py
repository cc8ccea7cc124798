"""`slipway watch`: what happens, as it happens."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Generic

import anyio
import typer
from slipway.common.v1.watch_pb2 import Deleted
from slipway.registry.v1.download_pb2 import Download, DownloadEvent, DownloadProgressUpdate, DownloadState
from slipway.runner.v1.model_pb2 import Model, ModelEvent, ModelProgressUpdate, ModelState

from slipway_client.cli.output import as_dict
from slipway_client.cli.session import Session, session
from slipway_client.cli.steps import Step, download_step, model_step
from slipway_client.downloads import FINAL_STATES
from slipway_client.errors import NotFound, SlipwayError
from slipway_client.events import Changed, Event, Progressed, Removed, Reset, Resource, Synced, Update
from slipway_client.watch import Watch
from slipway_client.words import word


def watch(
    context: typer.Context,
    ident: Annotated[
        str, typer.Argument(metavar="[ID]", help="A model or a download; everything when none is named.")
    ] = "",
) -> None:
    """Show what happens to models and downloads until Ctrl-C, or to one of them until it is over."""
    current = session(context)

    async def work() -> None:
        collection, name = await _find(current, ident) if ident else ("", "")
        async with anyio.create_task_group() as tasks:
            if collection != "models":
                tasks.start_soon(_watch_downloads, current, name)
            if collection != "downloads":
                tasks.start_soon(_watch_models, current, name)

    current.run(work)


async def _find(current: Session, ident: str) -> tuple[str, str]:
    """Whether it is a model or a download, and its name."""
    collection, slash, _ = ident.partition("/")
    if slash and collection in ("models", "downloads"):
        return collection, ident
    try:
        async with current.runner() as runner:
            return "models", (await runner.get_model(ident)).model.name
    except SlipwayError as no_model:
        try:
            async with current.registry() as registry:
                return "downloads", (await registry.get_download(ident)).download.name
        except NotFound:
            if not isinstance(no_model, NotFound):
                raise no_model from None
            raise NotFound("MODEL_NOT_FOUND", f"{ident} is neither a model nor a download") from None


async def _watch_downloads(current: Session, name: str) -> None:
    report: Report[Download, DownloadProgressUpdate] = Report(
        current,
        "downloads",
        step=download_step,
        state=lambda download: word(DownloadState, download.state),
        is_over=lambda download: download.state in FINAL_STATES,
        message=DownloadEvent,
    )
    async with current.registry() as registry:
        await report.all(registry.watch_downloads([name] if name else (), on_disconnect=report.lost), name)


async def _watch_models(current: Session, name: str) -> None:
    report: Report[Model, ModelProgressUpdate] = Report(
        current,
        "models",
        step=model_step,
        state=lambda model: word(ModelState, model.state),
        is_over=lambda model: model.state == ModelState.MODEL_STATE_UNLOADED,
        message=ModelEvent,
    )
    async with current.runner() as runner:
        await report.all(runner.watch_models([name] if name else (), on_disconnect=report.lost), name)


@dataclass
class Report(Generic[Resource, Update]):
    """Writes a line for each event: as JSON every one, for people those that say something new."""

    current: Session
    collection: str
    step: Callable[[Resource], Step]
    state: Callable[[Resource], str]
    is_over: Callable[[Resource], bool]
    message: Callable[..., Any]
    """Makes the contract's event."""
    is_synced: bool = False
    is_lost: bool = False
    shown: dict[str, tuple[str, str]] = field(default_factory=dict)

    async def all(self, events: Watch[Resource, Update], name: str) -> None:
        """Until Ctrl-C, or until the one that is named is over."""
        async with events:
            async for event in events:
                self.is_synced = self.is_synced or isinstance(event, Synced)
                self.is_lost = False
                if self.current.as_json:
                    self.current.output.json(self._as_dict(event))
                else:
                    self._tell(event, events)
                if name and self._ends(event):
                    return

    def lost(self, error: SlipwayError, _: float) -> None:
        """Ends the watch when there never was a stream, else tells it once."""
        if not self.is_synced:
            raise error
        if not self.is_lost and not self.current.as_json:
            self._line(self.collection, f"lost {error.address} ({error.reason}); going on when it is back")
        self.is_lost = True

    def _ends(self, event: Event[Resource, Update]) -> bool:
        return isinstance(event, Removed) or (isinstance(event, Changed) and self.is_over(event.resource))

    def _tell(self, event: Event[Resource, Update], events: Watch[Resource, Update]) -> None:
        match event:
            case Changed(resource):
                step = self.step(resource)
                self.shown[resource.name] = (step.key, step.mark)
                self._line(resource.name, self.state(resource), step.doing, step.mark or step.result)
            case Progressed(update):
                known = events.mirror.resources.get(update.name)
                if known is not None:
                    self._tell_progress(known)
            case Removed(name, _):
                self._line(name, "gone")
            case Reset():
                self._line(self.collection, "began anew; this is how it stands:")
            case Synced():
                pass

    def _tell_progress(self, resource: Resource) -> None:
        step = self.step(resource)
        if self.shown.get(resource.name) != (step.key, step.mark):
            self.shown[resource.name] = (step.key, step.mark)
            self._line(resource.name, step.doing, step.mark or step.result)

    def _line(self, name: str, *parts: str) -> None:
        now = datetime.now().astimezone()
        text = "  ".join(filter(None, parts))
        self.current.output.line((f"{now:%H:%M:%S}", "dim"), "  ", (name, "bold"), "  ", text)

    def _as_dict(self, event: Event[Resource, Update]) -> dict[str, Any]:
        """The contract's event as JSON; `reset` and `synced` say which collection they are about."""
        match event:
            case Changed(resource):
                return as_dict(self.message(**{self.collection.removesuffix("s"): resource}))
            case Progressed(update):
                return as_dict(self.message(progress=update))
            case Removed(name, uid):
                return as_dict(self.message(deleted=Deleted(name=name, uid=uid)))
            case Reset():
                return {"reset": True, "collection": self.collection}
            case Synced(cursor):
                return {"synced": True, "collection": self.collection, "cursor": as_dict(cursor)}
