"""Reproducible weights: every tensor is determined by its name."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


def uniform(name: str, *shape: int, rms: float = 1.0) -> Weights:
    """Evenly distributed around 0 with the given root mean square.

    From raw generator output, which numpy promises never to change.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    count = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw((count + 1) // 2).view(np.uint32)[:count]
    centred = raw.astype(np.float32) / np.float32(2**31) - np.float32(1)
    return (centred * np.float32(rms * 3**0.5)).reshape(shape)


def ones(*shape: int) -> Weights:
    """All 1."""
    return np.ones(shape, dtype=np.float32)


def zeros(*shape: int) -> Weights:
    """All 0."""
    return np.zeros(shape, dtype=np.float32)
