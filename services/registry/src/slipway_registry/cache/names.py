"""The last look at what the Hub sent before it becomes names on the disk."""

from collections.abc import Iterable

from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import BlobId, FilePath, XetHash


def blob_of(file: RepoFile) -> BlobId:
    """What a file's blob is called.

    Raises:
        Fault: HUB_ANSWER_UNSAFE: it has no hash, or one that is none.
    """
    try:
        return BlobId(file.blob_id)
    except ValueError:
        raise unsafe("hash", file.blob_id) from None


def check_tree(files: Iterable[RepoFile]) -> None:
    """All files of one commit: good names, hashes and sizes, and none of them a directory of another.

    Raises:
        Fault: HUB_ANSWER_UNSAFE.
    """
    seen = set()
    for file in files:
        blob_of(file)
        try:
            seen.add(FilePath(file.path))
            _ = XetHash(file.xet_hash) if file.xet_hash else None
        except ValueError:
            raise unsafe("file", file.path) from None
        if file.size_bytes < 0:
            raise unsafe("size", str(file.size_bytes))
    for path in seen:
        parts = path.split("/")
        if any("/".join(parts[:count]) in seen for count in range(1, len(parts))):
            raise unsafe("path", path)


def unsafe(what: str, value: str) -> Fault:
    """The Fault for a name that must not reach the disk."""
    shown = value[:200]
    return Fault(
        Reason.HUB_ANSWER_UNSAFE, f"the Hub sent a {what} that must not reach the disk: {shown!r}", facts={what: shown}
    )
