"""Which tensor lies in which safetensors file.

transformers 5 counts tensors, not files, and loads them in the order of their names (`convert_and_load_state_dict_in_
model` sorts the checkpoint's keys by `dot_natural_key`). With the files' headers the count says which files are done
and how many bytes were read.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER = 100_000_000
"""Bytes of a header that are read; the limit that the safetensors format itself has."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a checkpoint: its name, the index of its file, and its bytes."""

    name: str
    shard: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What `count` loaded tensors amount to. `current` is the file of the next one, "" when all are loaded."""

    shards: int
    bytes: int
    current: str


class ShardMap:
    """The tensors of a checkpoint in the order in which they are loaded."""

    def __init__(self, files: Sequence[str], tensors: Sequence[Tensor]) -> None:
        ordered = sorted(tensors, key=lambda tensor: natural_key(tensor.name))
        self._files = tuple(files)
        self._shard_of = [tensor.shard for tensor in ordered]
        self._bytes_at = [0]
        for tensor in ordered:
            self._bytes_at.append(self._bytes_at[-1] + tensor.size)
        last = {tensor.shard: position for position, tensor in enumerate(ordered, 1)}
        self._full_at = sorted(last.get(shard, 0) for shard in range(len(files)))

    @property
    def tensors(self) -> int:
        """How many tensors there are."""
        return len(self._shard_of)

    @property
    def shards(self) -> int:
        """How many files there are."""
        return len(self._files)

    @property
    def size_bytes(self) -> int:
        """The bytes of all tensors."""
        return self._bytes_at[-1]

    def loaded(self, count: int) -> Loaded:
        """Return what the first `count` tensors amount to; a file is loaded when all of its tensors are."""
        count = max(0, min(count, self.tensors))
        current = self._files[self._shard_of[count]] if count < self.tensors else ""
        return Loaded(shards=bisect_left(self._full_at, count + 1), bytes=self._bytes_at[count], current=current)


def read_shard_map(files: Sequence[Path]) -> ShardMap | None:
    """Read the headers of safetensors files (blocking, some KiB each); None if one is no such file."""
    try:
        tensors = [tensor for shard, path in enumerate(files) for tensor in _header(path, shard)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ShardMap([path.name for path in files], tensors) if tensors else None


def natural_key(name: str) -> list[tuple[int, int] | tuple[int, str, int]]:
    """Sort names as transformers does: by their dotted parts, numbers by value and before words."""
    key: list[tuple[int, int] | tuple[int, str, int]] = []
    for part in name.split("."):
        if part.isdigit():
            key.append((0, int(part)))
        else:
            word = part.rstrip("0123456789")
            key.append((1, word, int(part[len(word) :] or -1)))
    return key


def _header(path: Path, shard: int) -> list[Tensor]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"{path} says that its header has {size} bytes")
        header = json.loads(file.read(size))
    begin_end = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return [Tensor(name, shard, int(end) - int(begin)) for name, (begin, end) in begin_end.items()]
