"""A model as everybody sees it: one immutable value for each transition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from signal import Signals

from slipway_runner.backends.base import Task
from slipway_runner.models.spec import Spec
from slipway_runner.models.states import State
from slipway_runner.progress.signals import Cause
from slipway_runner.progress.tracker import LoadProgress

# Of a backend's processes; none has as many but by a fault of its own.
SHOWN_PIDS = 256


_STOPPING = "requests drain, then its processes are stopped"


class Activation(StrEnum):
    """Whether a load makes its model the active one of its task when it is LOADED for the first time."""

    ALWAYS = "ALWAYS"
    IF_NONE = "IF_NONE"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """How a backend ended by itself: by code or by signal, neither if it was not our child; with the end of its log."""

    code: int | None = None
    signal: Signals | None = None
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the runner knows of a model, as `slipway.runner.v1.Model` shows it. Times are Unix seconds.

    Attributes:
        id: chosen by the caller; `models/{id}` is its name.
        uid: new for each load of an id that was not there or in ERROR.
        generation: counts transitions of this uid; the etag.
        spec: what is run, defaults filled in.
        progress: how far it is, while LOADING.
        error: why, in ERROR and RESTARTING.
        exit: how its process ended last by itself.
        model_path: what the backend was given.
        settings_in_force: as the backend told them; see `Reader.in_force`.
        pid: of the leader, 0 when nothing runs.
        pids: of all its processes when this was written, or those that leaked.
        port: on loopback, 0 when nothing runs.
        served_name: what the backend wants to read in the `model` field of a request.
        api_key: what it wants to see in `Authorization: Bearer`; never shown.
        paths: its HTTP paths for the gateway's.
        active: whether it is the active model of its task.
        planned_bytes: memory it was planned to take.
        registry_bypassed: its files came from the cache because the registry was away.
        leaving: why it is being unloaded, in words; empty where a caller asked for it.
        replaces: uid of the model that it takes over from when it is LOADED; empty for none.
        message: what it does or waits for, in words.
    """

    id: str
    uid: str
    generation: int = 1
    spec: Spec
    state: State
    progress: LoadProgress | None = None
    error: Cause | None = None
    exit: ProcessExit | None = None
    task: Task
    commit: str = ""
    snapshot: str = ""
    model_path: str = ""
    variant: str = ""
    backend: str = ""
    backend_version: str = ""
    settings_in_force: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    pids: tuple[int, ...] = ()
    port: int = 0
    host: str = "127.0.0.1"
    served_name: str = ""
    api_key: str | None = field(default=None, repr=False)
    paths: Mapping[str, str] = field(default_factory=dict)
    active: bool = False
    activation: Activation = Activation.ALWAYS
    devices: tuple[str, ...] = ()
    planned_bytes: int = 0
    attempt: int = 1
    restart_count: int = 0
    retry_time: float | None = None
    adopted: bool = False
    registry_bypassed: bool = False
    create_time: float
    load_time: float | None = None
    update_time: float
    use_time: float | None = None
    leaving: str = ""
    replaces: str = ""
    message: str = ""

    def active_for(self, task: Task) -> bool:
        """Whether it is the active model of that task."""
        return self.active and self.task is task


def message_of(state: State, why: str, progress: LoadProgress | None) -> str:
    """What a model does or waits for, in one sentence for a person; `why` where there is a reason for its state."""
    match state:
        case State.LOADING:
            return progress.detail if progress else "waiting for its turn"
        case State.LOADED:
            return ""
        case State.UNHEALTHY:
            return f"it runs and does not answer: {why}"
        case State.RESTARTING:
            return f"it will be started again: {why}"
        case State.UNLOADING:
            return f"{why}: {_STOPPING}" if why else _STOPPING
        case State.ERROR:
            return why
        case State.UNLOADED:
            return "every process is gone"
