"""The safetensors format, written without the library: a length, a JSON header, the data."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.hub.models.noise import Weights

# The header is padded so that data begins at a multiple of this, as the library does.
_ALIGNMENT = 8


def bfloat16(tensor: Weights) -> bytes:
    """The upper halves of float32, rounded to the nearest even."""
    bits = tensor.astype(np.float32).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype("<u2").tobytes()


def write(path: Path, tensors: Mapping[str, Weights], *, dtype: str = "BF16") -> int:
    """Write a file of BF16 or F32 tensors; the bytes of its data."""
    data = {
        name: bfloat16(tensor) if dtype == "BF16" else tensor.astype("<f4").tobytes()
        for name, tensor in tensors.items()
    }
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(data[name])
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data.values()))
    return offset


def write_shards(directory: Path, tensors: Mapping[str, Weights], shards: int) -> Sequence[Path]:
    """Write ``model-0000i-of-0000N.safetensors`` of about equal sizes, and their index."""
    names = list(tensors)
    sizes = np.cumsum([tensors[name].size for name in names])
    groups: list[list[str]] = [[] for _ in range(shards)]
    for name, end in zip(names, sizes, strict=True):
        groups[min(shards - 1, int((end - 1) * shards // sizes[-1]))].append(name)
    paths = [directory / f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    total = sum(write(path, {name: tensors[name] for name in group}) for path, group in zip(paths, groups, strict=True))
    where = {name: path.name for path, group in zip(paths, groups, strict=True) for name in group}
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return paths
