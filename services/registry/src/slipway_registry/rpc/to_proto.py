"""From the registry's values to the messages of slipway.registry.v1 and slipway.common.v1."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from google.rpc import status_pb2
from slipway.common.v1 import task_pb2, variant_pb2
from slipway.registry.v1 import download_pb2, repo_pb2, selection_pb2
from slipway_service.fault import Fault, Link
from slipway_service.rpc_errors import to_status
from slipway_service.times import duration, timestamp
from slipway_service.weights.appraisal import ConfigSummary
from slipway_service.weights.cache_paths import snapshot_path
from slipway_service.weights.files import RepoFile
from slipway_service.weights.variant import Variant

from slipway_registry.cache.snapshot import snapshot_name
from slipway_registry.hub.metadata import RepoRef
from slipway_registry.hub.repository import Repository
from slipway_registry.hub.summary import RepoSummary
from slipway_registry.jobs.records import Download, Failure, PauseReason, Progress, State, WaitReason

MOST_FILES = 1000
"""Files in one answer of GetRepo; ListRepoFiles has the rest."""

_MOST_ACTIVE_FILES = 16

_PAUSE_REASONS: Mapping[PauseReason, download_pb2.PauseReason.ValueType] = {
    PauseReason.BY_CALLER: download_pb2.PAUSE_REASON_CALLER,
    PauseReason.CREDENTIAL_REQUIRED: download_pb2.PAUSE_REASON_CREDENTIAL_REQUIRED,
}


def summary(value: RepoSummary) -> repo_pb2.RepoSummary:
    """What a search shows."""
    return repo_pb2.RepoSummary(
        repo_id=value.repo,
        commit=value.commit or "",
        pipeline_tag=value.pipeline_tag,
        library=value.library,
        tags=value.tags,
        gating=repo_pb2.Gating.Value(f"GATING_{value.gating}") if value.gating else repo_pb2.GATING_UNSPECIFIED,
        private=value.private,
        downloads=value.downloads,
        likes=value.likes,
        trending_score=value.trending_score,
        parameters=value.parameters,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
    )


def repository(value: Repository) -> repo_pb2.Repo:
    """A repository at a commit."""
    return repo_pb2.Repo(
        repo_id=value.repo,
        revision=value.revision,
        commit=value.commit,
        summary=summary(value.summary),
        license=value.license,
        config=config(value.config),
        files=map(repo_file, value.files[:MOST_FILES]),
        file_count=len(value.files),
        total_bytes=value.total_bytes,
        variants=map(variant, value.variants),
        from_cache=value.from_cache,
    )


def config(value: ConfigSummary) -> repo_pb2.ConfigSummary:
    """What configuration and headers tell."""
    return repo_pb2.ConfigSummary(
        architecture=value.architecture,
        model_type=value.model_type,
        context_length=value.context_length,
        parameters=value.parameters,
        task=task_pb2.Task.Value(f"TASK_{value.task}") if value.task else task_pb2.TASK_UNSPECIFIED,
        chat_template=value.chat_template,
        remote_code=value.remote_code,
    )


def repo_file(value: RepoFile) -> variant_pb2.RepoFile:
    """A file of a commit."""
    return variant_pb2.RepoFile(
        path=value.path, size_bytes=value.size_bytes, blob_id=value.blob_id, lfs=value.lfs, xet_hash=value.xet_hash
    )


def variant(value: Variant) -> variant_pb2.Variant:
    """One way to have the weights."""
    message = variant_pb2.Variant(
        name=value.name,
        format=variant_pb2.WeightFormat.Value(f"WEIGHT_FORMAT_{value.format}"),
        quantization=value.quantization,
        bits_per_weight=value.bits_per_weight,
        files=map(repo_file, value.files),
        projector_files=map(repo_file, value.projector_files),
        size_bytes=value.size_bytes,
        default=value.default,
        fits=[
            variant_pb2.Fit(device_id=fit.device_id, fits=fit.fits, headroom_bytes=fit.headroom_bytes)
            for fit in value.fits
        ],
        missing=value.missing,
    )
    if (memory := value.memory) is not None:
        message.memory.CopyFrom(
            variant_pb2.MemoryEstimate(
                weights_bytes=memory.weights_bytes,
                kv_bytes_per_1k_tokens=memory.kv_bytes_per_1k_tokens,
                overhead_bytes=memory.overhead_bytes,
                context_tokens=memory.context_tokens,
                total_bytes=memory.total_bytes,
            )
        )
    return message


def repo_ref(value: RepoRef) -> repo_pb2.RepoRef:
    """A branch, tag or pull request."""
    return repo_pb2.RepoRef(kind=repo_pb2.RefKind.Value(f"REF_KIND_{value.kind}"), name=value.name, commit=value.commit)


def download(value: Download, *, retention: float, paths: Iterable[str] = ()) -> download_pb2.Download:
    """A download. `paths` only where the contract has them: not in lists and events; `retention` in seconds."""
    succeeded = value.state is State.SUCCEEDED
    message = download_pb2.Download(
        name=value.name,
        uid=value.id,
        etag=value.etag,
        repo_id=value.repo,
        revision=value.revision,
        commit=value.commit,
        files=selection_pb2.SelectedFiles(
            paths=paths,
            size_bytes=value.progress.total_bytes,
            variant=_said(value.selection, "taken"),
            explanation=_said(value.selection, "explanation"),
        ),
        state=download_pb2.DownloadState.Value(f"DOWNLOAD_STATE_{value.state}"),
        retry_time=timestamp(value.retry_time),
        error=failure(value.failure) if value.failure and _is_about_now(value) else None,
        progress=progress(value.progress, attempt=value.attempt, hash_failures=value.mismatches),
        snapshot=snapshot_name(value.repo, value.commit) if succeeded else "",
        snapshot_path=snapshot_path(value.repo, value.commit) if succeeded else "",
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        end_time=timestamp(value.end_time),
        expire_time=timestamp(value.end_time + timedelta(seconds=retention) if value.end_time else None),
        message=sentence(value),
    )
    if value.waiting_for is not None:
        message.queue_reason = download_pb2.QueueReason.Value(f"QUEUE_REASON_{value.waiting_for}")
    if value.pause_reason is not None:
        message.pause_reason = _PAUSE_REASONS[value.pause_reason]
    if (chosen := _selection(value.selection)) is not None:
        message.selection.CopyFrom(chosen)
    if not value.log_revision:  # it was never recorded, and cannot be asked for
        for field in ("name", "uid", "etag", "expire_time"):
            message.ClearField(field)
    return message


def progress(value: Progress, *, attempt: int, hash_failures: int) -> download_pb2.DownloadProgress:
    """How far a download is."""
    return download_pb2.DownloadProgress(
        done_bytes=value.done_bytes,
        total_bytes=value.total_bytes,
        done_files=value.done_files,
        total_files=value.total_files,
        cached_bytes=value.cached_bytes,
        resumed_bytes=value.resumed_bytes,
        bytes_per_second=round(value.bytes_per_second or 0),
        eta=duration(value.eta_seconds),
        active_files=value.files_in_flight[:_MOST_ACTIVE_FILES],
        attempt=attempt,
        hash_failures=hash_failures,
    )


def failure(value: Failure) -> status_pb2.Status:
    """Why a download failed, as a failed call would say it."""
    link = Link("Ask for access here", value.help_url) if value.help_url else None
    return to_status(
        Fault(
            value.reason,
            value.text,
            facts=value.facts,
            link=link,
            retry_after=value.retry_after,
            preconditions=value.preconditions,
        )
    )


def _is_about_now(value: Download) -> bool:
    """Whether the failure is what stands in the way, not one that the download has got over."""
    waits_for_space = value.state is State.QUEUED and value.waiting_for is WaitReason.DISK
    return waits_for_space or value.state in (State.BACKING_OFF, State.FAILED)


def sentence(value: Download) -> str:
    """What the download does or waits for, in words."""
    match value.state:
        case State.QUEUED if value.failure and value.waiting_for is WaitReason.DISK:
            return f"waits for disk: {value.failure.text}"
        case State.QUEUED:
            return f"waits for {(value.waiting_for or 'a slot').lower().replace('_', ' ')}"
        case State.BACKING_OFF | State.FAILED if value.failure:
            return value.failure.text
        case State.PAUSED if value.pause_reason is PauseReason.CREDENTIAL_REQUIRED:
            return "paused: it lives on a caller's token; resume it with that token"
        case _:
            return value.state.lower().replace("_", " ")


def _selection(record: Mapping[str, object]) -> selection_pb2.Selection | None:
    if "variant" in record:
        return selection_pb2.Selection(variant=_said(record, "variant"))
    if "include" in record:
        patterns = selection_pb2.PatternSelection(
            include=_listed(record, "include"), exclude=_listed(record, "exclude")
        )
        return selection_pb2.Selection(patterns=patterns)
    return selection_pb2.Selection(everything=True) if record.get("everything") else None


def _said(record: Mapping[str, object], key: str) -> str:
    return str(record.get(key) or "")


def _listed(record: Mapping[str, object], key: str) -> list[str]:
    found = record.get(key)
    return [str(item) for item in found] if isinstance(found, list) else []
