"""Estimates and fit."""

from slipway_service.weights.memory import (
    CacheShape,
    DeviceMemory,
    Fit,
    context_for,
    estimate,
    fits,
    layers_with_attention,
)

GIB = 1 << 30


def test_the_cache_of_llama_3_8b_is_128_kib_a_token() -> None:
    shape = CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128)
    assert shape.bytes_per_token == 128 << 10


def test_latent_attention_keeps_one_vector_a_layer() -> None:
    assert CacheShape(kv_heads=(1,) * 61, key_length=576, value_length=0).bytes_per_token == 61 * 576 * 2


def test_an_estimate_is_weights_cache_and_overhead() -> None:
    shape = CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128)
    needed = estimate(16 * GIB, shape, 8000)
    assert needed.weights_bytes == 16 * GIB
    assert needed.kv_bytes_per_1k_tokens == 1000 * (128 << 10)
    assert needed.overhead_bytes == GIB + GIB // 4
    assert needed.total_bytes == 16 * GIB + 8000 * (128 << 10) + needed.overhead_bytes


def test_without_a_header_there_is_no_cache_in_it() -> None:
    needed = estimate(GIB, None, 8192)
    assert needed.kv_bytes_per_1k_tokens is None
    assert needed.total_bytes == GIB + needed.overhead_bytes


def test_context_is_what_is_wanted_or_what_the_model_can() -> None:
    assert context_for(100_000, 4096) == 100_000
    assert context_for(0, 4096) == 4096
    assert context_for(0, 131_072) == 8192
    assert context_for(0, None) == 8192


def test_fit_says_by_how_much() -> None:
    needed = estimate(GIB, None, 8192)
    just = DeviceMemory(device_id="GPU-1", free_bytes=needed.total_bytes)
    short = DeviceMemory(device_id="cpu", free_bytes=needed.total_bytes - 5)
    assert fits(needed, [just, short]) == (
        Fit(device_id="GPU-1", fits=True, headroom_bytes=0),
        Fit(device_id="cpu", fits=False, headroom_bytes=-5),
    )


def test_attention_in_every_fourth_layer() -> None:
    assert layers_with_attention((1, 2, 3, 4, 5, 6, 7, 8), 4) == (4, 8)
    assert layers_with_attention((1, 2), 1) == (1, 2)
