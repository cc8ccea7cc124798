"""A chat model as a Hugging Face folder: sharded safetensors, config, tokenizer."""

import json
from pathlib import Path
from typing import Any

from tests.hub.models import safetensors, vocabulary
from tests.hub.models.chat import HEAD_WIDTH, ChatModel


def write(model: ChatModel, directory: Path, *, shards: int = 4) -> None:
    """Write everything that transformers and vLLM read, in the layout of `save_pretrained`."""
    directory.mkdir(parents=True, exist_ok=True)
    safetensors.write_shards(directory, dict(model.tensors()), shards)
    for name, value in {
        "config.json": config(model),
        "generation_config.json": _generation_config(),
        "tokenizer.json": model.vocabulary.tokenizer_json(),
        "tokenizer_config.json": _tokenizer_config(model),
        "special_tokens_map.json": _special_tokens(),
    }.items():
        (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def config(model: ChatModel) -> dict[str, Any]:
    """Its ``config.json``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(model.vocabulary.tokens),
        "hidden_size": model.hidden,
        "intermediate_size": model.feed_forward,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": HEAD_WIDTH,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": vocabulary.BEGIN,
        "eos_token_id": vocabulary.END,
        "pad_token_id": vocabulary.END,
        "torch_dtype": "bfloat16",
    }


def _generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": vocabulary.BEGIN,
        "eos_token_id": vocabulary.END,
        "pad_token_id": vocabulary.END,
        "do_sample": False,
    }


def _special_tokens() -> dict[str, str]:
    begin, end, unknown = (
        vocabulary.SPECIAL[index] for index in (vocabulary.BEGIN, vocabulary.END, vocabulary.UNKNOWN)
    )
    return {"bos_token": begin, "eos_token": end, "pad_token": end, "unk_token": unknown}


def _tokenizer_config(model: ChatModel) -> dict[str, Any]:
    return {
        # The name that transformers 4 and 5 both know.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.context,
        "clean_up_tokenization_spaces": False,
        "chat_template": vocabulary.CHAT_TEMPLATE,
        **_special_tokens(),
    }
