"""What happens to models, as entries of the event log that WatchModels serves."""

from collections.abc import Callable

from slipway.common.v1 import watch_pb2
from slipway.runner.v1 import model_pb2
from slipway_service import wire
from slipway_service.eventlog import EventLog

from slipway_runner.models.record import Model
from slipway_runner.models.states import State
from slipway_runner.progress.tracker import LoadProgress
from slipway_runner.rpc import to_proto

_RESTING = frozenset({State.LOADED, State.ERROR, State.UNLOADED})
"""States in which `until_done` stops waiting."""


class ModelLog:
    """A sink of the fleet that serialises each event once.

    Args:
        log: where entries go.
        endpoint: the gateway's base URL as callers reach it; asked for each entry: it is known late.
        observe: told of every transition, for health and metrics; None of a model that is gone.
        observe_progress: told of all progress of loads.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        endpoint: Callable[[], str],
        observe: Callable[[str, Model | None], None],
        observe_progress: Callable[[str, LoadProgress], None],
    ) -> None:
        self._log = log
        self._endpoint = endpoint
        self._observe = observe
        self._observe_progress = observe_progress

    def publish(self, model: Model) -> None:
        """A transition."""
        message = to_proto.model(model, endpoint=self._endpoint())
        event = wire.event_field(model_pb2.ModelEvent(model=message))
        self._log.append(message.name, event, done=model.state in _RESTING)
        self._observe(model.id, model)

    def progress(self, model_id: str, uid: str, progress: LoadProgress) -> None:
        """The newest progress of a load."""
        name = to_proto.MODEL_PREFIX + model_id
        update = model_pb2.ModelProgressUpdate(name=name, uid=uid, load_progress=to_proto.progress(progress))
        self._log.progress(name, wire.event_field(model_pb2.ModelEvent(progress=update)))
        self._observe_progress(model_id, progress)

    def removed(self, model_id: str, uid: str) -> None:
        """A model is no more."""
        name = to_proto.MODEL_PREFIX + model_id
        event = model_pb2.ModelEvent(deleted=watch_pb2.Deleted(name=name, uid=uid))
        self._log.delete(name, wire.event_field(event))
        self._observe(model_id, None)
