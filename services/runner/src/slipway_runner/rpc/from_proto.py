"""From the requests of slipway.runner.v1 to the runner's values; what is wrong with one is collected, not raised."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from slipway.common.v1 import task_pb2
from slipway.runner.v1 import model_pb2, model_service_pb2
from slipway_service.validation import Fields, ResourceName, resource_id
from slipway_service.weights.names import FilePath, RepoId, Revision

from slipway_runner.backends.base import Settings, Task
from slipway_runner.devices.device import DeviceKind
from slipway_runner.models.record import Activation
from slipway_runner.models.spec import PathSource, RepoSource, Source, Spec
from slipway_runner.models.states import RestartPolicy

MODEL_NAME = ResourceName.of("models")

_TASKS: Mapping[int, Task | None] = {
    task_pb2.TASK_UNSPECIFIED: None,
    task_pb2.TASK_GENERATE: Task.GENERATE,
    task_pb2.TASK_EMBED: Task.EMBED,
    task_pb2.TASK_RERANK: Task.RERANK,
}

_RESTART_POLICIES: Mapping[int, RestartPolicy] = {
    model_pb2.RESTART_POLICY_UNSPECIFIED: RestartPolicy.ON_FAILURE,
    model_pb2.RESTART_POLICY_NEVER: RestartPolicy.NEVER,
    model_pb2.RESTART_POLICY_ON_FAILURE: RestartPolicy.ON_FAILURE,
    model_pb2.RESTART_POLICY_ALWAYS: RestartPolicy.ALWAYS,
}

_ACTIVATIONS: Mapping[int, Activation] = {
    model_service_pb2.ACTIVATION_UNSPECIFIED: Activation.ALWAYS,
    model_service_pb2.ACTIVATION_ALWAYS: Activation.ALWAYS,
    model_service_pb2.ACTIVATION_IF_NONE: Activation.IF_NONE,
    model_service_pb2.ACTIVATION_NEVER: Activation.NEVER,
}

DEFAULT_TASK = Task.GENERATE
"""Whose active model is meant when nobody says."""

_DTYPES = ("float16", "bfloat16", "float32", "auto")
_MOST_DEVICES = 64
_MOST_ALIASES = 16
_DAY_SECONDS = 86_400.0


def task(value: int) -> Task | None:
    """None for the unspecified one. Raises ValueError: a number that this build does not know."""
    if value not in _TASKS:
        raise ValueError("must be TASK_GENERATE, TASK_EMBED or TASK_RERANK, or left out")
    return _TASKS[value]


def activation(value: int) -> Activation:
    """Raises ValueError: a number that this build does not know."""
    if value not in _ACTIVATIONS:
        raise ValueError("must be ACTIVATION_ALWAYS, ACTIVATION_IF_NONE or ACTIVATION_NEVER, or left out")
    return _ACTIVATIONS[value]


def state(value: int) -> int:
    """One of `ModelState`. Raises ValueError: the unspecified one, or a number that this build does not know."""
    if value not in model_pb2.ModelState.values() or value == model_pb2.MODEL_STATE_UNSPECIFIED:
        raise ValueError("must be a MODEL_STATE_…, and not MODEL_STATE_UNSPECIFIED")
    return value


def seconds(value: Duration, *, least: float = 0.0, most: float = _DAY_SECONDS) -> float:
    """A duration in seconds. Raises ValueError: outside the bounds."""
    found = value.ToNanoseconds() / 1e9
    if not least <= found <= most:
        raise ValueError(f"must be {least:g} s to {most:g} s")
    return found


def spec(message: model_pb2.ModelSpec, fields: Fields) -> Spec:
    """What to run. Wrong fields are noted in `fields`, relative to the message."""
    fields.check("file", not (message.variant and message.file), "give a variant or a file, not both")
    fields.check("devices", len(message.devices) <= _MOST_DEVICES, f"must be at most {_MOST_DEVICES}")
    fields.check("aliases", len(message.aliases) <= _MOST_ALIASES, f"must be at most {_MOST_ALIASES}")
    start = None
    if message.HasField("start_timeout"):
        start = fields.parse("start_timeout", lambda it: seconds(it, least=1.0), message.start_timeout)
    idle = fields.parse("idle_ttl", lambda it: seconds(it, most=365 * _DAY_SECONDS), message.idle_ttl)
    return Spec(
        source=_source(message, fields),
        variant=message.variant,
        file=fields.parse("file", FilePath.parse, message.file) if message.file else "",
        task=fields.parse("task", task, message.task),
        backend=fields.parse("backend", resource_id, message.backend) if message.backend else "",
        settings=_settings(message.settings, fields.under("settings")),
        flags=dict(message.flags),
        environment=dict(message.environment),
        devices=tuple(message.devices),
        restart_policy=fields.parse("restart_policy", _restart_policy, message.restart_policy),
        start_timeout=start,
        idle_ttl=idle or None,
        aliases=fields.parse_all("aliases", resource_id, message.aliases),
        pinned=message.pinned,
        load_on_demand=message.load_on_demand,
    )


def _source(message: model_pb2.ModelSpec, fields: Fields) -> Source:
    match message.WhichOneof("source"):
        case "repo":
            repo = fields.under("repo")
            return RepoSource(
                repo_id=repo.parse("repo_id", RepoId.parse, message.repo.repo_id),
                revision=repo.parse("revision", Revision.parse_or_default, message.repo.revision),
            )
        case "path":
            path = Path(message.path)
            fields.check("path", path.is_absolute() and "\0" not in message.path, "must be an absolute path")
            return PathSource(path=path)
        case _:
            fields.reject("repo", "say what to run: a repo, or a path of this host")
            return PathSource(path=Path())


def _settings(message: model_pb2.BackendSettings, fields: Fields) -> Settings:
    def number(name: str, least: int, most: int) -> int | None:
        if not message.HasField(name):  # type: ignore[arg-type]
            return None
        value: int = getattr(message, name)
        fields.check(name, least <= value <= most, f"must be {least:,} to {most:,}")
        return value

    share = message.gpu_memory_utilization if message.HasField("gpu_memory_utilization") else None
    fields.check("gpu_memory_utilization", share is None or 0 < share <= 1, "must be above 0, at most 1")
    fields.check("dtype", message.dtype in {"", *_DTYPES}, f"must be one of {', '.join(_DTYPES)}")
    return Settings(
        context_length=number("context_length", 1, 1 << 24),
        gpu_layers=number("gpu_layers", -1, 10_000),
        device=fields.parse("device", _device_kind, message.device),
        dtype=message.dtype if message.dtype not in {"", "auto"} else None,
        tensor_parallel_size=number("tensor_parallel_size", 1, 64),
        parallel_requests=number("parallel_requests", 1, 1024),
        device_memory_share=share,
    )


def _device_kind(value: str) -> DeviceKind | None:
    if value and value not in tuple(DeviceKind):
        raise ValueError(f"must be one of {', '.join(DeviceKind)}, or left out")
    return DeviceKind(value) if value else None


def _restart_policy(value: int) -> RestartPolicy:
    if value not in _RESTART_POLICIES:
        raise ValueError("must be RESTART_POLICY_NEVER, _ON_FAILURE or _ALWAYS, or left out")
    return _RESTART_POLICIES[value]
