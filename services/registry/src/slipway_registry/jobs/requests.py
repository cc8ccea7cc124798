"""What callers ask for, and the download that it makes."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import (
    EverySelection,
    PatternSelection,
    SelectedFiles,
    Selection,
    VariantSelection,
)

from slipway_registry.cache.names import check_tree
from slipway_registry.hub.credentials import Credential, CredentialKind
from slipway_registry.jobs.records import Download, Progress, State, WaitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What to download: resolved to a commit, with its whole listing, and the selected paths of it.

    `selection` is how the caller said it, for display. Without `credential` it is the registry's own.
    """

    repo: RepoId
    revision: Revision
    commit: Commit
    listing: Sequence[RepoFile]
    paths: Sequence[str]
    selection: Mapping[str, object] = field(default_factory=dict)
    credential: Credential | None = None

    @property
    def files(self) -> list[RepoFile]:
        """The selected files."""
        return chosen(self.listing, self.paths)


def chosen(listing: Sequence[RepoFile], paths: Sequence[str]) -> list[RepoFile]:
    """The files of a listing at these paths."""
    by_path: dict[str, RepoFile] = {file.path: file for file in listing}
    return [by_path[path] for path in paths]


def new_download(request: CreateRequest, now: datetime) -> Download:
    """The download that a request makes, queued.

    Raises:
        Fault: HUB_ANSWER_UNSAFE, SELECTION_EMPTY.
    """
    check_tree(request.listing)
    if not request.paths:
        raise Fault(Reason.SELECTION_EMPTY, f"The selection matches no file of {request.repo} at {request.commit}.")
    key = hashlib.sha256("\0".join([request.repo, request.commit, *sorted(request.paths)]).encode()).hexdigest()
    total = sum({file.blob_id: file.size_bytes for file in request.files}.values())
    return Download(
        id=uuid.uuid4().hex,
        repo=request.repo,
        revision=request.revision,
        commit=request.commit,
        selection=request.selection,
        key=key,
        state=State.QUEUED,
        waiting_for=WaitReason.SLOT,
        callers_credential=request.credential is not None and request.credential.kind is CredentialKind.CALLER,
        progress=Progress(total_bytes=total, total_files=len(request.paths)),
        create_time=now,
        update_time=now,
    )


def complete(download: Download) -> Download:
    """The same, where everything was there and verified already."""
    total, files = download.progress.total_bytes, download.progress.total_files
    progress = replace(download.progress, done_bytes=total, cached_bytes=total, done_files=files)
    return replace(download, state=State.SUCCEEDED, waiting_for=None, progress=progress, end_time=download.create_time)


def recorded(selection: Selection, selected: SelectedFiles) -> dict[str, object]:
    """What a download keeps of its selection, for display."""
    record: dict[str, object] = {"taken": selected.variant, "explanation": selected.explanation}
    match selection:
        case VariantSelection(name):
            record["variant"] = name
        case PatternSelection(include, exclude):
            record |= {"include": list(include), "exclude": list(exclude)}
        case EverySelection():
            record["everything"] = True
        case _:
            pass
    return record
