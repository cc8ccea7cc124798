"""Q4_K and Q6_K: the k-quants that make up Q4_K_M, which the gguf package reads but does not write.

Blocks are those of ggml's ``ggml-quants.c``; scales are found by range, without ggml's search for the best ones.
"""

import numpy as np
from numpy.typing import NDArray

from tests.hub.models.noise import Weights

Bytes = NDArray[np.uint8]
BLOCK = 256


def q4_k(tensor: Weights) -> Bytes:
    """Quantise rows (a multiple of 256 wide) to Q4_K: 144 bytes for each 256 values.

    A block has eight runs of 32 with a 6-bit scale and a 6-bit minimum each, and 4 bits for each value.
    """
    x = tensor.reshape(-1, 8, 32)
    low = np.minimum(x.min(axis=2), 0)
    steps = (x.max(axis=2) - low) / 15
    d = (steps.max(axis=1) / 63).astype(np.float16)
    d_min = (-low.min(axis=1) / 63).astype(np.float16)
    scales = _ratio(steps, d[:, None], 63)
    minimums = _ratio(-low, d_min[:, None], 63)
    step = d.astype(np.float32)[:, None, None] * scales[:, :, None]
    offset = d_min.astype(np.float32)[:, None, None] * minimums[:, :, None]
    q = _ratio(x + offset, step, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = q[:, :, 0] | q[:, :, 1] << 4
    parts = (_as_bytes(d), _as_bytes(d_min), _pack_scales(scales, minimums), packed.reshape(-1, 128))
    return _rows(np.concatenate(parts, axis=1), tensor)


def q6_k(tensor: Weights) -> Bytes:
    """Quantise rows (a multiple of 256 wide) to Q6_K: 210 bytes for each 256 values.

    A block has sixteen runs of 16 with an 8-bit scale each, and 6 bits for each value, kept as 4 and 2.
    """
    x = tensor.reshape(-1, 16, 16)
    steps = np.abs(x).max(axis=2) / 31
    d = (steps.max(axis=1) / 127).astype(np.float16)
    scales = _ratio(steps, d[:, None], 127)
    step = d.astype(np.float32)[:, None, None] * scales[:, :, None]
    signed = np.divide(x, step, out=np.zeros_like(x), where=step != 0)
    q = (np.clip(np.rint(signed), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.stack([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], axis=2)
    high = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    parts = (low.reshape(-1, 128), high.reshape(-1, 64), scales.astype(np.uint8), _as_bytes(d))
    return _rows(np.concatenate(parts, axis=1), tensor)


def _ratio(values: Weights, unit: NDArray[np.floating], most: int) -> Weights:
    """How many units each value is, rounded, from 0 to ``most``; 0 where the unit is 0."""
    unit = np.broadcast_to(unit.astype(np.float32), values.shape)
    ratio = np.divide(values, unit, out=np.zeros_like(values, dtype=np.float32), where=unit != 0)
    rounded: Weights = np.clip(np.rint(ratio), 0, most).astype(np.float32)
    return rounded


def _pack_scales(scales: Weights, minimums: Weights) -> Bytes:
    """Twelve bytes: the first four scales and minimums with the high bits of the rest above, then their low bits."""
    s, m = scales.astype(np.uint8), minimums.astype(np.uint8)
    first = s[:, :4] | s[:, 4:] >> 4 << 6
    second = m[:, :4] | m[:, 4:] >> 4 << 6
    third = s[:, 4:] & 15 | (m[:, 4:] & 15) << 4
    return np.concatenate((first, second, third), axis=1)


def _as_bytes(values: NDArray[np.float16]) -> Bytes:
    return values.view(np.uint8).reshape(-1, 2)


def _rows(blocks: Bytes, tensor: Weights) -> Bytes:
    return blocks.reshape(*tensor.shape[:-1], -1)
