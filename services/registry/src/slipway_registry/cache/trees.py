"""`trees/<commit>.json`: the complete listing of a commit, from which offline readers know what is missing.

The format is huggingface_hub's (`_tree_cache.py`, format 1). Its own files have mode 0600, which other users of the
cache cannot read; ours have the cache's mode.
"""

import hashlib
import json
from collections.abc import Iterable

from slipway_service.weights.files import RepoFile

FORMAT_VERSION = 1


def tree_json(files: Iterable[RepoFile]) -> bytes:
    """The file's content."""
    entries = {file.path: _entry(file) for file in sorted(files, key=lambda file: file.path)}
    return json.dumps({"format_version": FORMAT_VERSION, "files": entries}, indent=1).encode()


def _entry(file: RepoFile) -> dict[str, object]:
    if not file.lfs:
        return {"size": file.size_bytes, "blob_id": file.blob_id}
    entry: dict[str, object] = {
        "size": file.size_bytes,
        "blob_id": _pointer_id(file),
        "lfs_sha256": file.blob_id,
        "lfs_size": file.size_bytes,
    }
    return entry | ({"xet_hash": file.xet_hash} if file.xet_hash else {})


def _pointer_id(file: RepoFile) -> str:
    """The git-sha1 of an LFS file's pointer (git-lfs `docs/spec.md`), which is what git itself holds."""
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.blob_id}\nsize {file.size_bytes}\n".encode()
    )
    return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
