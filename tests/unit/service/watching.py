"""A client of the Watch contract, for tests: folds batches as `slipway_client` has to, from their bytes."""

from dataclasses import dataclass, field

from slipway.common.v1 import watch_pb2
from slipway.runner.v1 import model_pb2, model_service_pb2
from slipway_service import wire
from slipway_service.eventlog import Cursor, EventLog
from slipway_service.watcher import Batch


def model_event(name: str, uid: str) -> bytes:
    return wire.event_field(model_pb2.ModelEvent(model=model_pb2.Model(name=name, uid=uid)))


def progress_event(name: str, uid: str) -> bytes:
    return wire.event_field(model_pb2.ModelEvent(progress=model_pb2.ModelProgressUpdate(name=name, uid=uid)))


def deleted_event(name: str, uid: str) -> bytes:
    return wire.event_field(model_pb2.ModelEvent(deleted=watch_pb2.Deleted(name=name, uid=uid)))


def load(log: EventLog, name: str, uid: str = "", *, done: bool = False) -> None:
    log.append(name, model_event(name, uid), done=done)


def unload(log: EventLog, name: str, uid: str = "") -> None:
    log.delete(name, deleted_event(name, uid))


def progress(log: EventLog, name: str, uid: str = "") -> None:
    log.progress(name, progress_event(name, uid))


def decode(batch: Batch) -> model_service_pb2.WatchModelsResponse:
    """What a client receives for the batch."""
    return model_service_pb2.WatchModelsResponse.FromString(wire.batch(batch))


def said(batch: Batch | None) -> list[str]:
    """The events in words: `+models/a` for a transition, `~models/a` for progress, `-models/a` for a deletion."""
    assert batch is not None, "there was nothing to take"
    return [_word(event) for event in decode(batch).events]


def _word(event: model_pb2.ModelEvent) -> str:
    match event.WhichOneof("event"):
        case "model":
            return f"+{event.model.name}"
        case "progress":
            return f"~{event.progress.name}"
        case _:
            return f"-{event.deleted.name}"


@dataclass(slots=True)
class Mirror:
    """What a client knows: the state as of its cursor, and every transition it was told behind `since`, in order.

    What comes before `synced` counts only once `synced` comes: a stream that breaks earlier starts over. The uid of a
    progress has to be that of the transition it belongs to, a slash and a number.
    """

    cursor: Cursor | None = None
    state: dict[str, str] = field(default_factory=dict)
    progress: dict[str, str] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    since: int = 0
    _pending: list[model_pb2.ModelEvent] = field(default_factory=list)
    _starting_over: bool = False
    _synced: bool = False

    def connect(self) -> None:
        """A new stream begins; what an unsynced one had sent is forgotten."""
        self._pending.clear()
        self._synced = False
        self._starting_over = self.cursor is None

    def receive(self, batch: Batch) -> None:
        """Fold one batch."""
        message = decode(batch)
        assert message.HasField("cursor") or not self._synced or message.reset, "every batch after synced has a cursor"
        if message.reset:
            self._synced, self._starting_over = False, True
            self._pending.clear()
        self._pending += message.events
        if message.synced or self._synced:
            if self._starting_over:
                self.since = message.cursor.revision
            self._settle()
            self._synced = True
        assert message.HasField("cursor") is self._synced, "no batch before synced has a cursor"
        if message.HasField("cursor"):
            self.cursor = Cursor(epoch=message.cursor.epoch, revision=message.cursor.revision)

    def _settle(self) -> None:
        if self._starting_over:
            self.state.clear()
            self.progress.clear()
            self.told.clear()
        for event in self._pending:
            self._fold(event, replayed=not self._starting_over)
        self._pending.clear()
        self._starting_over = False

    def _fold(self, event: model_pb2.ModelEvent, *, replayed: bool) -> None:
        match event.WhichOneof("event"):
            case "progress":
                of = event.progress.uid.partition("/")[0]
                assert self.state.get(event.progress.name) == of, "progress belongs to the transition told last"
                self.progress[event.progress.name] = event.progress.uid
                return
            case "model":
                name, uid = event.model.name, event.model.uid
                self.state[name] = uid
            case _:
                name, uid = event.deleted.name, event.deleted.uid
                self.state.pop(name)
        self.progress.pop(name, None)
        if replayed:
            self.told.append((name, uid))
