"""Reading `trees/<commit>.json`, ours or huggingface_hub's own (`_tree_cache.py`, format 1)."""

import json
from pathlib import Path

from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, FilePath, XetHash

from slipway_registry.cache.trees import FORMAT_VERSION


def read_listing(path: Path) -> tuple[RepoFile, ...] | None:
    """Every file of the commit, by path; None where nothing readable says so."""
    try:
        return parse_listing(path.read_bytes())
    except (OSError, ValueError):
        return None


def parse_listing(content: bytes) -> tuple[RepoFile, ...]:
    """The files of a listing, by path.

    Raises:
        ValueError: it is not one.
    """
    try:
        tree = json.loads(content)
        if tree["format_version"] != FORMAT_VERSION:
            raise ValueError("a listing of another format")
        return tuple(_file(path, entry) for path, entry in sorted(tree["files"].items()))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no listing of a commit: {error!r}") from error


def _file(path: str, entry: dict[str, object]) -> RepoFile:
    git = BlobId(str(entry["blob_id"]))
    sha256, xet_hash = entry.get("lfs_sha256"), entry.get("xet_hash")
    size = entry.get("lfs_size") if sha256 else entry["size"]
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"{path} has no size")
    return RepoFile(
        path=FilePath(path),
        size_bytes=size,
        blob_id=BlobId(str(sha256)) if sha256 else git,
        lfs=bool(sha256),
        xet_hash=XetHash(str(xet_hash)) if xet_hash else "",
        git_oid=git,
    )
