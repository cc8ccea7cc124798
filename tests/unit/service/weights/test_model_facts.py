"""What configurations tell, sensible ones and others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_service.weights.memory import CacheShape
from slipway_service.weights.model_facts import MAX_CONFIG_BYTES, ModelFacts, facts_of_config, parse_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}


def parsed(config: Any) -> ModelFacts:
    facts = parse_config(json.dumps(config).encode())
    assert facts is not None
    return facts


def test_a_usual_configuration() -> None:
    assert parsed(LLAMA) == ModelFacts(
        architecture="LlamaForCausalLM",
        model_type="llama",
        context_length=131072,
        cache=CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128),
        quantization="BF16",
    )


def test_old_names_and_explicit_head_sizes() -> None:
    old = parsed({"n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024})
    assert old.context_length == 1024
    assert old.cache == CacheShape(kv_heads=(12,) * 12, key_length=64, value_length=64)
    explicit = parsed({**LLAMA, "head_dim": 256})
    assert explicit.cache is not None
    assert explicit.cache.key_length == 256


def test_the_text_part_of_a_model_of_several() -> None:
    facts = parsed({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": LLAMA})
    assert facts.architecture == "Gemma3ForConditionalGeneration"
    assert facts.context_length == 131072
    assert facts.quantization == "BF16"


def test_latent_attention_and_sparse_attention() -> None:
    latent = parsed({**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert latent.cache == CacheShape(kv_heads=(1,) * 32, key_length=576, value_length=0)
    sparse = parsed({**LLAMA, "full_attention_interval": 4})
    assert sparse.cache == CacheShape(kv_heads=(8,) * 8, key_length=128, value_length=128)


def test_quantised_and_remote() -> None:
    facts = parsed(
        {**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}, "auto_map": {"AutoModel": "x.X"}}
    )
    assert (facts.quantization, facts.bits_per_weight, facts.remote_code) == ("AWQ", 4.0, True)


def test_labels_of_a_classifier() -> None:
    assert parsed({"id2label": {"0": "LABEL_0"}}).labels == 1
    assert parsed({"num_labels": 3}).labels == 3


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (MAX_CONFIG_BYTES + 1), b"1" * 5000]
)
def test_what_is_no_configuration(content: bytes) -> None:
    assert parse_config(content) is None


def test_incredible_figures_say_nothing_and_cost_nothing() -> None:
    assert facts_of_config({**LLAMA, "num_hidden_layers": 2**40}).cache is None
    assert facts_of_config({**LLAMA, "num_hidden_layers": 2**30}).cache is None
    assert facts_of_config({**LLAMA, "hidden_size": -1}).cache is None
    assert facts_of_config({"architectures": [7], "model_type": 3, "max_position_embeddings": True}) == ModelFacts()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_KEYS = st.sampled_from(
    [*LLAMA, "quantization_config", "id2label", "text_config", "kv_lora_rank", "head_dim", "auto_map"]
)


@given(st.dictionaries(_KEYS, _JSON, max_size=6))
def test_any_configuration_is_survived(config: dict[str, Any]) -> None:
    facts = facts_of_config({**LLAMA, **config})
    assert facts.cache is None or facts.cache.bytes_per_token >= 0
