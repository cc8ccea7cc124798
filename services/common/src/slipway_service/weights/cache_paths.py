"""Where things are in a Hugging Face cache, and where the cache itself is.

The layout is that of hub-docs `docs/hub/local-cache.md`; the precedence of the variables that of huggingface_hub's
`constants.py`. Nothing here touches the disk.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway_service.weights.names import KEEP_PREFIX, BlobId, Commit, FilePath, RepoId, Revision

FOLDER_PREFIX = "models--"
"""First part of a model repository's folder name; data sets and spaces have others, and are left alone."""

INGEST = ".ingest"
"""The registry's own directory within a repository's folder. Cache scans ignore it, and it goes with the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRoots:
    """Where the cache is.

    Attributes:
        home: `HF_HOME`: tokens and other things beside the cache.
        hub: the hub cache, which has a folder for each repository.
        warnings: what an operator should know about the environment, each a sentence.
    """

    home: Path
    hub: Path
    warnings: tuple[str, ...] = ()


def cache_roots(environment: Mapping[str, str]) -> CacheRoots:
    """The cache that huggingface_hub would use under this environment.

    `HF_HUB_CACHE` is before `HUGGINGFACE_HUB_CACHE` (its old name), both before `$HF_HOME/hub`; `HF_HOME` before
    `$XDG_CACHE_HOME/huggingface`, that before `~/.cache/huggingface`. An empty variable counts as unset here;
    there it would mean the working directory.
    """
    user_cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = _expanded(environment.get("HF_HOME") or f"{user_cache}/huggingface", environment)
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    hub = _expanded(named, environment) if named else home / "hub"
    return CacheRoots(home=home, hub=hub, warnings=_warnings(environment, hub))


def _warnings(environment: Mapping[str, str], hub: Path) -> tuple[str, ...]:
    old = environment.get("TRANSFORMERS_CACHE")
    if not old:
        return ()
    ignored = f"TRANSFORMERS_CACHE={old} is ignored, as transformers 5 ignores it: the cache is {hub}."
    return (f"{ignored} Set HF_HUB_CACHE={old} to use that directory, and unset TRANSFORMERS_CACHE.",)


_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def _expanded(text: str, environment: Mapping[str, str]) -> Path:
    """With `~` and `$NAME` replaced from the environment given; a variable that is not set stays as it is."""
    if text == "~" or text.startswith("~/"):
        text = (environment.get("HOME") or str(Path.home())) + text[1:]
    return Path(_VARIABLE.sub(lambda match: environment.get(match[1] or match[2], match[0]), text))


def repo_folder(repo: RepoId) -> str:
    """The folder of a repository within the hub cache: `models--owner--name`."""
    return FOLDER_PREFIX + repo.replace("/", "--")


def repo_of_folder(folder: str) -> RepoId | None:
    """The repository that a folder of the hub cache is for; None where it is for something else."""
    if not folder.startswith(FOLDER_PREFIX):
        return None
    try:
        return RepoId(folder.removeprefix(FOLDER_PREFIX).replace("--", "/"))
    except ValueError:
        return None


def snapshot_path(repo: RepoId, commit: Commit) -> str:
    """A snapshot relative to the hub cache, which hosts mount at different places."""
    return f"{repo_folder(repo)}/snapshots/{commit}"


def link_target(path: FilePath, blob: BlobId) -> str:
    """What the link at `path` of a snapshot says: its blob, relative to the link's own directory."""
    return "../" * (2 + path.count("/")) + f"blobs/{blob}"


@dataclass(frozen=True, slots=True)
class RepoPaths:
    """The paths of one repository in a hub cache."""

    hub: Path
    repo: RepoId

    @property
    def root(self) -> Path:
        """The repository's folder."""
        return self.hub / repo_folder(self.repo)

    @property
    def blobs(self) -> Path:
        """Contents, each named by its hash."""
        return self.root / "blobs"

    @property
    def snapshots(self) -> Path:
        """One directory of links for each commit."""
        return self.root / "snapshots"

    @property
    def refs(self) -> Path:
        """One file for each branch, tag or pull request, which holds its commit."""
        return self.root / "refs"

    @property
    def trees(self) -> Path:
        """Complete listings of commits, from which offline readers know whether a snapshot is whole."""
        return self.root / "trees"

    @property
    def ingest(self) -> Path:
        """Where the registry builds what it is about to publish, and keeps its trash."""
        return self.root / INGEST

    def blob(self, blob: BlobId) -> Path:
        """One content."""
        return self.blobs / blob

    def snapshot(self, commit: Commit) -> Path:
        """The files of a commit."""
        return self.snapshots / commit

    def file(self, commit: Commit, path: FilePath) -> Path:
        """One file of a commit."""
        return self.snapshots / commit / path

    def ref(self, revision: Revision) -> Path:
        """The file that holds what a revision points at. Never for a hash: see `Revision.names_ref`."""
        return self.refs / revision

    def keep_ref(self, commit: Commit) -> Path:
        """The registry's own ref, which keeps `hf cache prune` from taking the snapshot for a detached one."""
        return self.refs / f"{KEEP_PREFIX}{commit}"

    def tree(self, commit: Commit) -> Path:
        """The listing of a commit."""
        return self.trees / f"{commit}.json"

    def no_exist(self, commit: Commit) -> Path:
        """Where huggingface_hub notes the files that a commit does not have."""
        return self.root / ".no_exist" / commit

    def lock(self, blob: BlobId) -> Path:
        """huggingface_hub's own lock for a blob."""
        return self.hub / ".locks" / repo_folder(self.repo) / f"{blob}.lock"
