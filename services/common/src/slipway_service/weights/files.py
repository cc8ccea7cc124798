"""A file of a repository at a commit."""

from dataclasses import dataclass

from slipway_service.weights.names import FilePath


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFile:
    """One file, as `slipway.common.v1.RepoFile` has it.

    Attributes:
        path: where it is within the repository.
        size_bytes: its size.
        blob_id: a `BlobId`, or empty for a file that does not come from a Hub (a directory that a runner is given).
        lfs: whether `blob_id` is a sha256 (an LFS or Xet file).
        xet_hash: a `XetHash`, or empty where the file is not in Xet storage.
        git_oid: git's own id of what it holds: for an LFS file that of its pointer, else `blob_id`. Part of the
            cache's listings; not shown to clients.
    """

    path: FilePath
    size_bytes: int
    blob_id: str = ""
    lfs: bool = False
    xet_hash: str = ""
    git_oid: str = ""
