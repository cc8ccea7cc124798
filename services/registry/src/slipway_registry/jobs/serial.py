"""Downloads and listings as JSON text, for the store."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from slipway_service.fault import Precondition, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from slipway_registry.jobs.records import Download, Failure, PauseReason, Progress, State, WaitReason

_TIMES = ("retry_time", "away_since", "create_time", "update_time", "start_time", "end_time")


def dump_download(download: Download) -> str:
    """JSON that `load_download` understands."""
    return json.dumps(asdict(download), default=_plain, separators=(",", ":"))


def load_download(text: str) -> Download:
    """The download that `dump_download` wrote; fields that a newer version added since take their defaults."""
    values: dict[str, Any] = json.loads(text)
    for name in _TIMES:
        values[name] = datetime.fromtimestamp(values[name], UTC) if values.get(name) is not None else None
    values |= {
        "repo": RepoId(values["repo"]),
        "commit": Commit(values["commit"]),
        "revision": Revision(values["revision"]),
        "also": tuple(map(Revision, values.get("also", ()))),
    }
    values["state"] = State(values["state"])
    values["waiting_for"] = WaitReason(values["waiting_for"]) if values["waiting_for"] else None
    values["pause_reason"] = PauseReason(values["pause_reason"]) if values["pause_reason"] else None
    if failure := values["failure"]:
        preconditions = tuple(Precondition(**it) for it in failure.get("preconditions", ()))
        values["failure"] = Failure(**failure | {"reason": Reason(failure["reason"]), "preconditions": preconditions})
    progress = values["progress"]
    values["progress"] = Progress(**progress | {"files_in_flight": tuple(progress["files_in_flight"])})
    return Download(**values)


def dump_listing(files: Iterable[RepoFile]) -> str:
    """JSON that `load_listing` understands."""
    rows = [[file.path, file.size_bytes, file.blob_id, file.lfs, file.xet_hash] for file in files]
    return json.dumps(rows, separators=(",", ":"))


def load_listing(text: str) -> tuple[RepoFile, ...]:
    """The files that `dump_listing` wrote."""
    return tuple(
        RepoFile(path=FilePath(path), size_bytes=size, blob_id=blob_id, lfs=lfs, xet_hash=xet)
        for path, size, blob_id, lfs, xet in json.loads(text)
    )


def _plain(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(type(value))
