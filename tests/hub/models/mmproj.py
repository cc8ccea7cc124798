"""A multimodal projector as GGUF: the vision half (LLaVA's: CLIP and two layers) that lies beside a chat model."""

from pathlib import Path

import gguf

from tests.hub.models.chat_gguf import Kind, finish, quantize
from tests.hub.models.noise import ones, uniform, zeros

# The smallest that llama.cpp's image code takes: an image of 2 x 2 patches.
_IMAGE, _PATCH, _HIDDEN, _INNER, _HEADS, _LAYERS = 28, 14, 64, 128, 1, 2
_POSITIONS = (_IMAGE // _PATCH) ** 2 + 1


def write(path: Path, *, name: str, width: int) -> None:
    """Write a projector into the embedding of a language model ``width`` wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(width)
    writer.add_vision_image_size(_IMAGE)
    writer.add_vision_patch_size(_PATCH)
    writer.add_vision_embedding_length(_HIDDEN)
    writer.add_vision_feed_forward_length(_INNER)
    writer.add_vision_block_count(_LAYERS)
    writer.add_vision_head_count(_HEADS)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)
    _add_tensors(writer, name, width)
    finish(writer)


def _add_tensors(writer: gguf.GGUFWriter, name: str, width: int) -> None:
    def linear(prefix: str, rows: int, columns: int) -> None:
        weight = uniform(f"{name}/{prefix}", rows, columns, rms=columns**-0.5)
        writer.add_tensor(f"{prefix}.weight", quantize(weight, Kind.F16))
        writer.add_tensor(f"{prefix}.bias", zeros(rows))

    def norm(prefix: str) -> None:
        writer.add_tensor(f"{prefix}.weight", ones(_HIDDEN))
        writer.add_tensor(f"{prefix}.bias", zeros(_HIDDEN))

    writer.add_tensor("v.class_embd", uniform(f"{name}/class", _HIDDEN))
    patches = uniform(f"{name}/patches", _HIDDEN, 3, _PATCH, _PATCH, rms=0.05)
    writer.add_tensor("v.patch_embd.weight", quantize(patches, Kind.F16))
    writer.add_tensor("v.position_embd.weight", uniform(f"{name}/positions", _POSITIONS, _HIDDEN, rms=0.02))
    norm("v.pre_ln")
    for layer in range(_LAYERS):
        prefix = f"v.blk.{layer}"
        norm(f"{prefix}.ln1")
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(f"{prefix}.{part}", _HIDDEN, _HIDDEN)
        norm(f"{prefix}.ln2")
        linear(f"{prefix}.ffn_up", _INNER, _HIDDEN)
        linear(f"{prefix}.ffn_down", _HIDDEN, _INNER)
    linear("mm.0", width, _HIDDEN)
    linear("mm.2", width, width)
