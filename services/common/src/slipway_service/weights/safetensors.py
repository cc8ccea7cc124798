"""The header of a safetensors file, and the index of a sharded set.

Format: the safetensors README: eight bytes of length, then JSON; at most 100 MB of it.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from slipway_service.weights.names import FilePath
from slipway_service.weights.reading import HeaderError, Read, Window

MAX_HEADER_BYTES = 100_000_000
"""As the format's own library has it."""

MAX_INDEX_BYTES = 64 << 20
"""Largest index that is taken; models with 100,000 tensors have one of 10 MiB."""

MAX_TENSORS = 1_000_000

_BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """What a safetensors file holds.

    Attributes:
        elements: how many elements of each type, by the format's name (`BF16`).
        metadata: the file's own notes (`{"format": "pt"}`).
        tensors: how many tensors there are.
        file_bytes: how large the file must be. A smaller one is cut off.
    """

    elements: Mapping[str, int]
    metadata: Mapping[str, str]
    tensors: int
    file_bytes: int

    @property
    def parameters(self) -> int:
        """Elements of all tensors. Packed quantisations (AWQ, GPTQ) have several parameters in one."""
        return sum(self.elements.values())


def parse_safetensors(read: Read) -> SafetensorsHeader:
    """Read a safetensors file's header.

    Raises:
        HeaderError: it is none, it is cut off, or it claims what no file has.
    """
    window = Window(read, _LENGTH.size + MAX_HEADER_BYTES)
    (length,) = window.unpack(_LENGTH)
    if length > MAX_HEADER_BYTES:
        raise HeaderError("not a safetensors file")
    header = _object(window.take(length))
    metadata = header.pop("__metadata__", {})
    if len(header) > MAX_TENSORS or not isinstance(metadata, dict):
        raise HeaderError("more tensors than any model has, or notes that are none")
    elements: dict[str, int] = {}
    end = 0
    for tensor in header.values():
        kind, count, stop = _tensor(tensor)
        elements[kind] = elements.get(kind, 0) + count
        end = max(end, stop)
    return SafetensorsHeader(
        elements=elements,
        metadata={key: value for key, value in metadata.items() if isinstance(value, str)},
        tensors=len(header),
        file_bytes=_LENGTH.size + length + end,
    )


def _tensor(tensor: Any) -> tuple[str, int, int]:
    """A tensor's type, elements and end."""
    try:
        kind, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        sizes = [*shape, start, stop]
        if type(kind) is not str or any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes):
            raise HeaderError("a tensor without type, shape and place")
    except (LookupError, TypeError, ValueError) as error:
        raise HeaderError("a tensor without type, shape and place") from error
    count = prod(shape)
    if kind in _BITS and count * _BITS[kind] != (stop - start) * 8:
        raise HeaderError("a tensor whose place is not as large as it is")
    return kind, count, stop


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsIndex:
    """The index of a sharded set, `model.safetensors.index.json`.

    Attributes:
        shards: file names, relative to the index's folder, in order.
        tensors: how many tensors there are.
        total_bytes: of all tensors, as the index says; None where it does not.
    """

    shards: tuple[FilePath, ...]
    tensors: int
    total_bytes: int | None

    def missing(self, there: Iterable[str]) -> tuple[FilePath, ...]:
        """Shards that are not among the names in the index's folder."""
        names = set(there)
        return tuple(shard for shard in self.shards if shard not in names)


def parse_index(content: bytes) -> SafetensorsIndex:
    """Read an index.

    Raises:
        HeaderError: it is none.
    """
    if len(content) > MAX_INDEX_BYTES:
        raise HeaderError(f"an index of more than {MAX_INDEX_BYTES:,} bytes")
    index = _object(content)
    weights, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(weights, dict) or not all(isinstance(shard, str) for shard in weights.values()):
        raise HeaderError("an index without a map of weights")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    try:
        shards = tuple(sorted({FilePath(shard) for shard in set(weights.values())}))
    except ValueError as error:
        raise HeaderError(f"an index that names no file: {error}") from error
    return SafetensorsIndex(
        shards=shards, tensors=len(weights), total_bytes=total if type(total) is int and total >= 0 else None
    )


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HeaderError("a header that is not JSON") from error
    if not isinstance(value, dict):
        raise HeaderError("a header that is no JSON object")
    return value
