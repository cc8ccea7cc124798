"""Lists of files, as short as their paths."""

from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath


def files(*paths: str, size: int = 1000) -> tuple[RepoFile, ...]:
    """Files of one size at these paths; `path:size` gives one another size."""
    made = []
    for text in paths:
        path, _, own = text.partition(":")
        made.append(RepoFile(path=FilePath(path), size_bytes=int(own or size)))
    return tuple(made)
