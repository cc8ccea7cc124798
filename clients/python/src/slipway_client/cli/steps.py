"""Where a download or a load is, in words and numbers. Pure: from the resource to what is shown of it."""

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status
from slipway.registry.v1.download_pb2 import Download, DownloadState, PauseReason, QueueReason
from slipway.runner.v1.model_pb2 import LoadProgress, LoadStage, Model, ModelState

from slipway_client.cli import format as fmt
from slipway_client.error_details import from_status
from slipway_client.words import word

RATE_AFTER = 1.0
"""Seconds after which a mean rate says something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of a download or a load."""

    key: str
    """Another key is another step, on a line of its own."""
    doing: str
    """What is shown while it lasts: `downloading`."""
    done: str
    """What is shown of it when the next has begun: `downloaded`."""
    fraction: float | None = None
    """For the bar; None shows none."""
    numbers: str = ""
    """What the bar means: sizes, rate, time left."""
    result: str = ""
    """What is kept of the numbers when it is done."""
    mark: str = ""
    """Progress worth a line where there is no bar: `shard 2/4`."""
    is_waiting: bool = False
    """It waits for something; not worth a line when that took no time."""
    is_kept: bool = True
    """Whether a line tells of it when it is over."""
    is_setback: bool = False
    """The step before it did not come to its end."""


_QUEUE_REASONS = {
    QueueReason.QUEUE_REASON_SLOT: "a free slot",
    QueueReason.QUEUE_REASON_DISK: "disk space",
    QueueReason.QUEUE_REASON_HUB_RATE: "the Hub's rate limit",
}


def download_step(download: Download) -> Step:
    """Where a download is."""
    state = download.state
    key = word(DownloadState, state)
    match state:
        case DownloadState.DOWNLOAD_STATE_QUEUED:
            reason = _QUEUE_REASONS.get(download.queue_reason, "its turn")
            return Step(key=key, doing=f"waiting for {reason}", done="waited", is_waiting=True)
        case DownloadState.DOWNLOAD_STATE_RUNNING:
            return _transfer(download)
        case DownloadState.DOWNLOAD_STATE_VERIFYING:
            return Step(key=key, doing="verifying", done="verified")
        case DownloadState.DOWNLOAD_STATE_BACKING_OFF:
            return Step(key=key, doing="trying again soon", done="waited", mark=_why(download.error), is_setback=True)
        case DownloadState.DOWNLOAD_STATE_PAUSED:
            return _paused(download)
        case _:
            ended_well = state == DownloadState.DOWNLOAD_STATE_SUCCEEDED
            return Step(key=key, doing=key.lower(), done=key.lower(), is_setback=not ended_well)


def _transfer(download: Download) -> Step:
    progress = download.progress
    numbers = [fmt.size_of(progress.done_bytes, progress.total_bytes)]
    if progress.bytes_per_second:
        numbers.append(f"{fmt.size(progress.bytes_per_second)}/s")
    if progress.HasField("eta"):
        numbers.append(f"{fmt.seconds(_seconds(progress.eta))} left")
    if progress.hash_failures:
        numbers.append(f"{fmt.plural(progress.hash_failures, 'file')} damaged on the way, fetched again")
    return Step(
        key="RUNNING",
        doing="downloading",
        done="downloaded",
        fraction=_fraction(download),
        numbers=" · ".join(numbers),
        result=fmt.size(progress.total_bytes),
    )


def bytes_step(key: str, doing: str, done: str, *, done_bytes: int, total_bytes: int, elapsed: float) -> Step:
    """Work on bytes of which only the count is told; `elapsed` is seconds since it began, for rate and time left."""
    numbers = [fmt.size_of(done_bytes, total_bytes)]
    if elapsed >= RATE_AFTER and done_bytes:
        rate = done_bytes / elapsed
        numbers += [f"{fmt.size(rate)}/s", f"{fmt.seconds((total_bytes - done_bytes) / rate)} left"]
    return Step(
        key=key,
        doing=doing,
        done=done,
        fraction=done_bytes / total_bytes if total_bytes else None,
        numbers=" · ".join(numbers),
        result=fmt.size(total_bytes),
    )


def _paused(download: Download) -> Step:
    if download.pause_reason == PauseReason.PAUSE_REASON_CREDENTIAL_REQUIRED:
        hint = "it needs your Hub token again: set SLIPWAY_HF_TOKEN and"
    else:
        hint = "to go on:"
    mark = f"{hint} slipway resume {download.name.removeprefix('downloads/')}"
    return Step(key="PAUSED", doing="paused", done="paused", mark=mark, is_setback=True)


def _fraction(download: Download) -> float | None:
    progress = download.progress
    return progress.done_bytes / progress.total_bytes if progress.total_bytes else None


_STAGES = {
    LoadStage.LOAD_STAGE_QUEUED: ("waiting for a slot or memory", "waited"),
    LoadStage.LOAD_STAGE_FETCHING: ("downloading", "downloaded"),
    LoadStage.LOAD_STAGE_VERIFYING: ("checking files", "checked files"),
    LoadStage.LOAD_STAGE_STARTING: ("starting", "started"),
    LoadStage.LOAD_STAGE_LOADING_WEIGHTS: ("loading weights", "loaded weights"),
    LoadStage.LOAD_STAGE_WARMING_UP: ("warming up", "warmed up"),
}


def model_step(model: Model) -> Step:
    """Where a model is."""
    state = model.state
    key = word(ModelState, state)
    match state:
        case ModelState.MODEL_STATE_LOADING:
            return _stage(model)
        case ModelState.MODEL_STATE_RESTARTING:
            return Step(key=key, doing="restarting soon", done="waited", mark=_why(model.error), is_setback=True)
        case ModelState.MODEL_STATE_UNHEALTHY:
            return Step(key=key, doing="not answering", done="not answering", mark=model.message, is_setback=True)
        case ModelState.MODEL_STATE_UNLOADING:
            return Step(key=key, doing="unloading", done="unloaded")
        case ModelState.MODEL_STATE_ERROR:
            return Step(key=key, doing="failed", done="failed", mark=_why(model.error), is_setback=True)
        case _:
            return Step(key=key, doing=key.lower(), done=key.lower(), is_kept=False)


def _stage(model: Model) -> Step:
    progress = model.load_progress
    doing, done = _STAGES.get(progress.stage, ("preparing", "prepared"))
    if progress.stage == LoadStage.LOAD_STAGE_STARTING and model.backend:
        doing, done = f"{doing} {model.backend}", f"{done} {model.backend}"
    mark, result = _shards(progress)
    if _counts_bytes(progress):
        result = ", ".join(filter(None, (result, fmt.size(progress.total_bytes))))
    return Step(
        key=f"{word(LoadStage, progress.stage)} {model.attempt}",
        doing=doing,
        done=done,
        fraction=_stage_fraction(progress),
        numbers=_stage_numbers(progress, mark, doing),
        result=result,
        mark=mark,
        is_waiting=progress.stage == LoadStage.LOAD_STAGE_QUEUED or _fetches_nothing(progress),
        is_kept=progress.stage != LoadStage.LOAD_STAGE_UNSPECIFIED,
    )


def _fetches_nothing(progress: LoadProgress) -> bool:
    """Whether it asks for files of which no byte is to come, as far as is known: they are in the cache."""
    return progress.stage == LoadStage.LOAD_STAGE_FETCHING and not progress.total_bytes


def _shards(progress: LoadProgress) -> tuple[str, str]:
    """What is said of the shards while they load, and what is kept of it."""
    total = progress.total_shards
    if total and progress.stage == LoadStage.LOAD_STAGE_LOADING_WEIGHTS:
        return f"shard {progress.done_shards}/{total}", fmt.plural(total, "shard")
    if total and progress.stage == LoadStage.LOAD_STAGE_WARMING_UP:
        # Small weights are read between two batches of progress: this is then the first that is heard of them.
        return f"{progress.done_shards} of {total} shards loaded", ""
    return "", ""


def _counts_bytes(progress: LoadProgress) -> bool:
    """Whether the bytes are those of the stage under way; in later stages they are left over."""
    return bool(progress.total_bytes) and progress.stage <= LoadStage.LOAD_STAGE_LOADING_WEIGHTS


def _stage_fraction(progress: LoadProgress) -> float | None:
    """How far the stage is, by its bytes, else by its shards."""
    if _counts_bytes(progress):
        return progress.done_bytes / progress.total_bytes
    if progress.total_shards and progress.stage == LoadStage.LOAD_STAGE_LOADING_WEIGHTS:
        return progress.done_shards / progress.total_shards
    return None


def _stage_numbers(progress: LoadProgress, mark: str, doing: str) -> str:
    numbers = [mark] if mark else []
    if _counts_bytes(progress):
        numbers.append(fmt.size_of(progress.done_bytes, progress.total_bytes))
    if progress.HasField("eta"):
        numbers.append(f"{fmt.seconds(_seconds(progress.eta))} left")
    detail = progress.detail if progress.detail != doing else ""
    if detail and (not numbers or progress.stage == LoadStage.LOAD_STAGE_FETCHING):  # why the bytes do not move
        numbers.append(detail)
    return " · ".join(numbers)


def _why(status: Status) -> str:
    return str(from_status(status)) if status.code else ""


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
