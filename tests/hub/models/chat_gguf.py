"""A chat model as GGUF files, in the quantisations and layouts that repositories offer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.hub.models import kquants, vocabulary
from tests.hub.models.chat import HEAD_WIDTH, ChatModel
from tests.hub.models.noise import Weights

Kind = gguf.GGMLQuantizationType
# Hugging Face's names for a layer's tensors, and GGUF's.
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """What `general.file_type` says, and the type of each matrix."""

    file_type: gguf.LlamaFileType
    kind: Callable[[str], Kind]


def _mixed(name: str) -> Kind:
    """The M of Q4_K_M: more bits where errors cost most."""
    finer = name.endswith(("attn_v.weight", "ffn_down.weight")) or name == "output.weight"
    return Kind.Q6_K if finer else Kind.Q4_K


QUANTIZATIONS: Mapping[str, Quantization] = {
    "Q4_K_M": Quantization(gguf.LlamaFileType.MOSTLY_Q4_K_M, _mixed),
    "Q8_0": Quantization(gguf.LlamaFileType.MOSTLY_Q8_0, lambda _: Kind.Q8_0),
    "F16": Quantization(gguf.LlamaFileType.MOSTLY_F16, lambda _: Kind.F16),
    "BF16": Quantization(gguf.LlamaFileType.MOSTLY_BF16, lambda _: Kind.BF16),
    "F32": Quantization(gguf.LlamaFileType.ALL_F32, lambda _: Kind.F32),
}


def write(model: ChatModel, quantization: str, path: Path, *, parts: int = 1) -> list[Path]:
    """Write a model; with several ``parts`` the files are named ``…-00001-of-0000N.gguf`` after ``path``."""
    chosen = QUANTIZATIONS[quantization]
    tensors = [(gguf_name(name), tensor) for name, tensor in model.tensors()]
    per_part = -(-len(tensors) // parts) if parts > 1 else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=per_part)
    _describe(writer, model, chosen.file_type)
    for name, tensor in tensors:
        kind = Kind.F32 if tensor.ndim == 1 else chosen.kind(name)
        data = quantize(tensor, kind)
        writer.add_tensor(name, data, raw_dtype=None if data.dtype != np.uint8 else kind)
    finish(writer)
    stem = path.name.removesuffix(".gguf")
    return sorted(path.parent.glob(f"{stem}-*-of-*.gguf")) if parts > 1 else [path]


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything out."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(tensor: Weights, kind: Kind) -> NDArray[np.generic]:
    """A tensor's data in one of ggml's types."""
    match kind:
        case Kind.F32:
            return tensor
        case Kind.F16:
            return tensor.astype(np.float16)
        case Kind.Q4_K:
            return kquants.q4_k(tensor)
        case Kind.Q6_K:
            return kquants.q6_k(tensor)
        case _:
            data: NDArray[np.generic] = gguf.quantize(tensor, kind)
            return data


def gguf_name(name: str) -> str:
    """GGUF's name for one of Hugging Face's."""
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name):
        return f"blk.{match[1]}.{_LAYER_NAMES[match[2]]}.weight"
    return f"{_NAMES[name.removesuffix('.weight')]}.weight"


def _describe(writer: gguf.GGUFWriter, model: ChatModel, file_type: gguf.LlamaFileType) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(model.name)
    writer.add_basename(model.name)
    writer.add_license("apache-2.0")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.feed_forward)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    tokens = model.vocabulary.tokens
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(tokens))
    writer.add_token_types([_token_type(token) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model.vocabulary.merges])
    writer.add_unk_token_id(vocabulary.UNKNOWN)
    writer.add_bos_token_id(vocabulary.BEGIN)
    writer.add_eos_token_id(vocabulary.END)
    writer.add_pad_token_id(vocabulary.END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(vocabulary.CHAT_TEMPLATE)


def _token_type(token: str) -> gguf.TokenType:
    if token in vocabulary.SPECIAL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.UNUSED if token.startswith("<|reserved_") else gguf.TokenType.NORMAL
