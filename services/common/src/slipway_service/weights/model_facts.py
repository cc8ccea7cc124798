"""What is known of a model beyond its files' names, from a GGUF header or from config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway_service.weights.gguf import GgufHeader, Value
from slipway_service.weights.memory import CacheShape, layers_with_attention

MAX_CONFIG_BYTES = 1 << 20
"""Largest config.json that is read; those with label names for thousands of classes have a few hundred KiB."""

_MAX_LAYERS = 4096
_MAX_WIDTH = 1 << 24
"""Beyond these a header is not believed, and nothing is said of the key-value cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a header or a configuration tells. None, or an empty text, is what it does not.

    Attributes:
        architecture: `LlamaForCausalLM` from config.json, `llama` from a GGUF.
        model_type: of config.json.
        context_length: longest context it was trained for, tokens.
        parameters: how many.
        cache: what decides the size of the key-value cache.
        quantization: how all its weights are quantised, or their element type. Of a GGUF it is left empty: a header
            stands for the other quantisations too.
        bits_per_weight: of a quantisation that says so.
        chat_template: whether one comes with it.
        pooling: of a GGUF.
        labels: outputs of a classifier.
        remote_code: whether it needs code from the repository (`auto_map`).
    """

    architecture: str = ""
    model_type: str = ""
    context_length: int | None = None
    parameters: int | None = None
    cache: CacheShape | None = None
    quantization: str = ""
    bits_per_weight: float | None = None
    chat_template: bool | None = None
    pooling: str = ""
    labels: int | None = None
    remote_code: bool = False


def facts_of_gguf(header: GgufHeader) -> ModelFacts:
    """The facts of a header; of a split file, the first part's has all but the parameters."""
    length = header.of_architecture("context_length")
    return ModelFacts(
        architecture=header.architecture,
        context_length=_positive(length),
        parameters=header.parameters if header.split[1] <= 1 and header.parameters else None,
        cache=_gguf_cache(header),
        chat_template=header.chat_template,
        pooling=header.pooling,
    )


def _gguf_cache(header: GgufHeader) -> CacheShape | None:
    def number(key: str) -> int | None:
        return _positive(header.of_architecture(key))

    if header.of_architecture("attention.causal") is False:
        return CacheShape(kv_heads=(), key_length=0, value_length=0)
    layers, width = number("block_count"), number("embedding_length")
    heads = _first(header.of_architecture("attention.head_count"))
    kv_heads = _per_layer(header.of_architecture("attention.head_count_kv") or heads, layers)
    if layers is None or width is None or not heads or kv_heads is None:
        return None
    shared = min(number("attention.shared_kv_layers") or 0, len(kv_heads))
    kv_heads = kv_heads[: len(kv_heads) - shared]
    key, value = number("attention.key_length") or width // heads, number("attention.value_length") or width // heads
    latent = number("attention.key_length_mla") is not None
    return CacheShape(
        kv_heads=layers_with_attention(kv_heads, number("full_attention_interval") or 1),
        key_length=min(key, _MAX_WIDTH),
        value_length=0 if latent else min(value, _MAX_WIDTH),
    )


def _first(value: Value | None) -> int | None:
    return max((_positive(item) or 0 for item in value), default=None) if isinstance(value, tuple) else _positive(value)


def _per_layer(value: Value | int | None, layers: int | None) -> tuple[int, ...] | None:
    if layers is None or layers > _MAX_LAYERS:
        return None
    if isinstance(value, tuple):
        heads = tuple(_positive(item) or 0 for item in value)
    else:
        one = _positive(value)
        heads = () if one is None else (one,) * layers
    return heads if heads and max(heads) <= _MAX_WIDTH else None


def parse_config(content: bytes) -> ModelFacts | None:
    """The facts of a config.json; None where it is none."""
    try:
        config = json.loads(content) if len(content) <= MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        return None
    return facts_of_config(config) if isinstance(config, Mapping) else None


def facts_of_config(config: Mapping[str, Any]) -> ModelFacts:
    """The facts of a configuration, of its text part where it has several (`text_config`)."""
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    architectures = config.get("architectures")
    return ModelFacts(
        architecture=_text(architectures[0]) if isinstance(architectures, list) and architectures else "",
        model_type=_text(config.get("model_type")),
        context_length=_any_of(inner, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        cache=_config_cache(inner),
        quantization=_quantization(config, inner),
        bits_per_weight=_quantized_bits(config),
        labels=_labels(config),
        remote_code=bool(config.get("auto_map")),
    )


def _config_cache(config: Mapping[str, Any]) -> CacheShape | None:
    layers = _any_of(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _any_of(config, "num_attention_heads", "n_head", "num_heads")
    width = _any_of(config, "hidden_size", "n_embd", "d_model")
    if layers is None or layers > _MAX_LAYERS or heads is None or width is None:
        return None
    if latent := _any_of(config, "kv_lora_rank"):
        key = latent + (_any_of(config, "qk_rope_head_dim") or 0)
        return CacheShape(kv_heads=(1,) * layers, key_length=min(key, _MAX_WIDTH), value_length=0)
    kv_heads = min(_any_of(config, "num_key_value_heads") or heads, _MAX_WIDTH)
    length = min(_any_of(config, "head_dim") or width // heads, _MAX_WIDTH)
    every = _any_of(config, "full_attention_interval") or 1
    kinds = layers_with_attention((kv_heads,) * layers, every)
    return CacheShape(kv_heads=kinds, key_length=length, value_length=length)


def _quantization(config: Mapping[str, Any], inner: Mapping[str, Any]) -> str:
    method = config.get("quantization_config")
    if isinstance(method, Mapping):
        return _text(method.get("quant_method")).upper()
    named = (_text(part.get(key)) for part in (config, inner) for key in ("dtype", "torch_dtype"))
    return next((_ELEMENT_TYPES[kind] for kind in named if kind in _ELEMENT_TYPES), "")


def _quantized_bits(config: Mapping[str, Any]) -> float | None:
    method = config.get("quantization_config")
    bits = _positive(method.get("bits")) if isinstance(method, Mapping) else None
    return float(bits) if bits and bits <= _MOST_BITS else None


_MOST_BITS = 32
_ELEMENT_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float8_e4m3fn": "FP8"}


def _labels(config: Mapping[str, Any]) -> int | None:
    names = config.get("id2label")
    return _any_of(config, "num_labels") or (len(names) if isinstance(names, Mapping) else None)


def _any_of(config: Mapping[str, Any], *keys: str) -> int | None:
    return next((number for key in keys if (number := _positive(config.get(key)))), None)


def _positive(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 31 else None


def _text(value: object) -> str:
    return value.encode("utf-8", "replace").decode()[:128] if isinstance(value, str) else ""
