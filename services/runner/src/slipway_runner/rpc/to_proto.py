"""From the runner's values to the messages of slipway.runner.v1. Total: every value has a message."""

from collections.abc import Iterable, Mapping

from slipway.common.v1 import task_pb2
from slipway.runner.v1 import model_pb2
from slipway_service.rpc_errors import to_status
from slipway_service.times import duration, timestamp

from slipway_runner.backends.base import Settings, Task
from slipway_runner.models.record import Model, ProcessExit
from slipway_runner.models.spec import RepoSource, Spec
from slipway_runner.models.states import RestartPolicy, State
from slipway_runner.progress.signals import Source
from slipway_runner.progress.tracker import LoadProgress

MODEL_PREFIX = "models/"

TASKS: Mapping[Task, task_pb2.Task.ValueType] = {
    Task.GENERATE: task_pb2.TASK_GENERATE,
    Task.EMBED: task_pb2.TASK_EMBED,
    Task.RERANK: task_pb2.TASK_RERANK,
}

RESTART_POLICIES: Mapping[RestartPolicy, model_pb2.RestartPolicy.ValueType] = {
    RestartPolicy.NEVER: model_pb2.RESTART_POLICY_NEVER,
    RestartPolicy.ON_FAILURE: model_pb2.RESTART_POLICY_ON_FAILURE,
    RestartPolicy.ALWAYS: model_pb2.RESTART_POLICY_ALWAYS,
}

_SOURCES: Mapping[Source, model_pb2.ProgressSource.ValueType] = {
    Source.REPORTED: model_pb2.PROGRESS_SOURCE_REPORTED,
    Source.LOG: model_pb2.PROGRESS_SOURCE_LOG,
    Source.KERNEL: model_pb2.PROGRESS_SOURCE_KERNEL,
    Source.ESTIMATED: model_pb2.PROGRESS_SOURCE_ESTIMATED,
}

_MAX_LAST_LINES = 50
_MAX_LINE_LENGTH = 1000
_MAX_PIDS = 256


def model(value: Model, *, endpoint: str) -> model_pb2.Model:
    """The whole resource; `endpoint` is the gateway's base URL, empty when there is no gateway."""
    return model_pb2.Model(
        name=MODEL_PREFIX + value.id,
        uid=value.uid,
        etag=etag(value),
        spec=spec(value.spec),
        state=state(value.state),
        load_progress=progress(value.progress) if value.progress else None,
        error=to_status(value.error.fault) if value.error else None,
        exit=process_exit(value.exit) if value.exit else None,
        commit=value.commit,
        snapshot=value.snapshot,
        model_path=value.model_path,
        variant=value.variant,
        backend=value.backend,
        backend_version=value.backend_version,
        settings_in_force=value.settings_in_force,
        pid=value.pid,
        pids=value.pids[:_MAX_PIDS],
        port=value.port,
        endpoint=endpoint,
        active_tasks=[TASKS[value.task]] if value.active else [],
        devices=value.devices,
        planned_bytes=value.planned_bytes,
        attempt=value.attempt,
        restart_count=value.restart_count,
        retry_time=timestamp(value.retry_time),
        adopted=value.adopted,
        registry_bypassed=value.registry_bypassed,
        create_time=timestamp(value.create_time),
        load_time=timestamp(value.load_time),
        update_time=timestamp(value.update_time),
        use_time=timestamp(value.use_time),
        message=value.message,
    )


def etag(value: Model) -> str:
    """Changes with every transition, and with the uid; empty for a model that there is not, only what it would be."""
    if not value.uid:
        return ""
    return f"{value.uid[:8]}-{value.generation}"


def spec(value: Spec) -> model_pb2.ModelSpec:
    """What is run, as it was asked for with its defaults filled in."""
    message = model_pb2.ModelSpec(
        variant=value.variant,
        file=value.file,
        task=TASKS[value.task] if value.task else task_pb2.TASK_UNSPECIFIED,
        backend=value.backend,
        settings=settings(value.settings),
        flags=value.flags,
        environment=value.environment,
        devices=value.devices,
        restart_policy=RESTART_POLICIES[value.restart_policy],
        start_timeout=duration(value.start_timeout),
        idle_ttl=duration(value.idle_ttl),
        aliases=value.aliases,
        pinned=value.pinned,
        load_on_demand=value.load_on_demand,
    )
    if isinstance(value.source, RepoSource):
        message.repo.CopyFrom(model_pb2.RepoSource(repo_id=value.source.repo_id, revision=value.source.revision))
    else:
        message.path = str(value.source.path)
    return message


def settings(value: Settings) -> model_pb2.BackendSettings:
    """The settings that were asked for."""
    return model_pb2.BackendSettings(
        context_length=value.context_length,
        gpu_layers=value.gpu_layers,
        dtype=value.dtype or "",
        tensor_parallel_size=value.tensor_parallel_size,
        gpu_memory_utilization=value.device_memory_share,
        parallel_requests=value.parallel_requests,
        device=value.device or "",
    )


def state(value: State) -> model_pb2.ModelState.ValueType:
    """The state; the names are the same on both sides."""
    return model_pb2.ModelState.Value(f"MODEL_STATE_{value}")


def progress(value: LoadProgress) -> model_pb2.LoadProgress:
    """How far a load is."""
    return model_pb2.LoadProgress(
        stage=model_pb2.LoadStage.Value(f"LOAD_STAGE_{value.stage}"),
        fraction=value.fraction,
        done_shards=value.shards_done,
        total_shards=value.shards_total,
        current_shard=value.current_shard,
        done_bytes=value.bytes_done,
        total_bytes=value.bytes_total,
        source=_SOURCES[value.source],
        detail=value.detail,
        eta=duration(value.eta_seconds),
    )


def process_exit(value: ProcessExit) -> model_pb2.ProcessExit:
    """How a process ended, with the end of its log."""
    return model_pb2.ProcessExit(
        code=value.code,
        signal=value.signal.name if value.signal else "",
        last_lines=clipped(value.last_lines),
    )


def clipped(lines: Iterable[str]) -> list[str]:
    """The last lines, each cut to what a message should carry."""
    return [line[:_MAX_LINE_LENGTH] for line in list(lines)[-_MAX_LAST_LINES:]]
