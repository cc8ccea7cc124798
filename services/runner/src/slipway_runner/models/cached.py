"""What the cache of this host holds, read without the registry: for when that is away.

The registry makes files visible in a snapshot only after it has hashed them, so what is there with its whole size is
right. The layout is huggingface_hub's: see `slipway_service.weights.cache_paths`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision
from slipway_service.weights.variant import WeightFormat

from slipway_runner.models.facts import read_facts
from slipway_runner.models.snapshots import Description, Snapshot, Want
from slipway_runner.models.spec import RepoSource


def describe(hub: Path, source: RepoSource) -> Description | None:
    """What of a repository the cache has, at the commit that it knows for the revision (blocking, milliseconds).

    None where it does not know the revision or has nothing of it.
    """
    paths = RepoPaths(hub, RepoId(source.repo_id))
    commit = _resolve(paths, Revision(source.revision))
    if commit is None:
        return None
    files = tuple(_files(paths, commit))
    facts = _facts(paths.snapshot(commit))
    return Description(
        name=source.repo_id,
        commit=commit,
        files=files,
        architecture=facts.architecture,
        remote_code=facts.remote_code,
        registry_bypassed=True,
        root=paths.snapshot(commit),
    )


def find(hub: Path, want: Want) -> Snapshot | None:
    """Where the files that are wanted lie (blocking, milliseconds); None unless the cache has all of them, whole."""
    paths, commit = RepoPaths(hub, RepoId(want.source.repo_id)), Commit(want.commit)
    if not want.files or not set(want.files) <= {file.path for file in _files(paths, commit)}:
        return None
    return Snapshot(root=paths.snapshot(commit), registry_bypassed=True)


def _resolve(paths: RepoPaths, revision: Revision) -> Commit | None:
    """A name's commit is in its ref; anything else is a hash, or the beginning of one, that has a snapshot."""
    there = list(_commits(paths))
    with suppress(OSError, ValueError):
        commit = Commit(paths.ref(revision).read_text().strip())
        return commit if commit in there else None
    return revision.within(there)


def _commits(paths: RepoPaths) -> Iterator[Commit]:
    with suppress(OSError):
        for name in os.listdir(paths.snapshots):
            with suppress(ValueError):
                yield Commit(name)


def _files(paths: RepoPaths, commit: Commit) -> Iterator[RepoFile]:
    """The files of a snapshot that are there, by path; one whose size is not what the commit has is left out."""
    root, sizes = paths.snapshot(commit), _sizes(paths, commit)
    for folder, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            file = Path(folder, name)
            with suppress(OSError, ValueError):  # a link to nothing; a name that no repository could have
                path = FilePath(file.relative_to(root).as_posix())
                size = file.stat().st_size
                if sizes.get(path, size) == size:
                    yield RepoFile(path=path, size_bytes=size)


def _sizes(paths: RepoPaths, commit: Commit) -> Mapping[str, int]:
    """Sizes of the commit's files as its listing has them; of those that no listing tells nothing is known."""
    try:
        entries = json.loads(paths.tree(commit).read_bytes())["files"]
        return {str(path): int(entry.get("lfs_size") or entry["size"]) for path, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _facts(root: Path) -> ModelFacts:
    return read_facts(root, "", WeightFormat.SAFETENSORS)  # config.json's; what a GGUF says is read when it is run
