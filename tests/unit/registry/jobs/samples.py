"""Downloads to test with."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from slipway_registry.jobs.records import Download, State, WaitReason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REPO = RepoId("org/model")
COMMIT = Commit("c" * 40)
LISTING = (
    RepoFile(path=FilePath("config.json"), size_bytes=2, blob_id="1" * 40),
    RepoFile(path=FilePath("model.gguf"), size_bytes=1 << 33, blob_id="2" * 64, lfs=True, xet_hash="3" * 64),
)


def download(**changes: Any) -> Download:
    """A queued download, with these fields changed."""
    made = Download(
        id="d" * 32,
        repo=REPO,
        revision=Revision("main"),
        commit=COMMIT,
        selection={"patterns": ["*"]},
        key="k",
        state=State.QUEUED,
        waiting_for=WaitReason.SLOT,
        create_time=NOW,
        update_time=NOW,
    )
    return replace(made, **changes)
