"""What serving weights takes, and whether that fits on a device. Rules of thumb, on the safe side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CACHE_ELEMENT_BYTES = 2
"""The key-value cache is held at 16 bit by every backend unless told otherwise."""

DEFAULT_CONTEXT_TOKENS = 8192
"""Context that an estimate counts when the caller names none: a chat with a few pages in it."""

FIXED_OVERHEAD_BYTES = 256 << 20
"""A device context (CUDA's takes 200 to 500 MB) and the smallest compute buffers."""

OVERHEAD_SHARE = 16
"""One part in so many of the weights goes on top for compute buffers, which grow with the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What decides the size of a key-value cache.

    Attributes:
        kv_heads: key-value heads of each layer that has attention; recurrent layers are 0 or left out.
        key_length: elements of a key, per head.
        value_length: elements of a value, per head; 0 where values are a view of the keys (latent attention).
    """

    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int

    @property
    def bytes_per_token(self) -> int:
        """Bytes of cache for one token of context.

        Sliding windows are not taken off: how backends allocate them differs, and the estimate must not be too small.
        """
        return sum(self.kv_heads) * (self.key_length + self.value_length) * CACHE_ELEMENT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """As `slipway.common.v1.MemoryEstimate`; all in bytes.

    Attributes:
        weights_bytes: the weights once loaded, all devices together.
        kv_bytes_per_1k_tokens: key-value cache for each 1,000 tokens of context; None when the header does not tell.
        overhead_bytes: compute buffers and the backend itself.
        context_tokens: tokens of context that `total_bytes` counts.
    """

    weights_bytes: int
    kv_bytes_per_1k_tokens: int | None
    overhead_bytes: int
    context_tokens: int

    @property
    def total_bytes(self) -> int:
        """The sum."""
        cache = (self.kv_bytes_per_1k_tokens or 0) * self.context_tokens // 1000
        return self.weights_bytes + cache + self.overhead_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """The memory of one device, bytes. `device_id` as `slipway.common.v1.DeviceMemory` has it."""

    device_id: str
    free_bytes: int
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether an estimate fits on a device: `headroom_bytes` is left over, or missing when negative."""

    device_id: str
    fits: bool
    headroom_bytes: int


def context_for(wanted: int, trained: int | None) -> int:
    """The context to estimate for: what is wanted, else the smaller of 8,192 and what the model was trained for."""
    return wanted or min(DEFAULT_CONTEXT_TOKENS, trained or DEFAULT_CONTEXT_TOKENS)


def estimate(weights_bytes: int, cache: CacheShape | None, context_tokens: int) -> MemoryEstimate:
    """What serving takes. `weights_bytes` is what is loaded, projector included; `cache` None where it is not known."""
    return MemoryEstimate(
        weights_bytes=weights_bytes,
        kv_bytes_per_1k_tokens=cache.bytes_per_token * 1000 if cache else None,
        overhead_bytes=FIXED_OVERHEAD_BYTES + weights_bytes // OVERHEAD_SHARE,
        context_tokens=context_tokens,
    )


def fits(needed: MemoryEstimate, devices: Iterable[DeviceMemory]) -> tuple[Fit, ...]:
    """Whether the estimate fits on each device alone, in the devices' order."""
    return tuple(_fit(needed.total_bytes, device) for device in devices)


def _fit(needed: int, device: DeviceMemory) -> Fit:
    headroom = device.free_bytes - needed
    return Fit(device_id=device.device_id, fits=headroom >= 0, headroom_bytes=headroom)


def layers_with_attention(kv_heads: Sequence[int], every: int) -> tuple[int, ...]:
    """Key-value heads of the layers that have attention, where only each `every`-th has (0 or 1: all of them)."""
    return tuple(kv_heads[every - 1 :: every]) if every > 1 else tuple(kv_heads)
