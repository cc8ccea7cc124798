"""GGUF files made on the spot with the reference implementation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    f16: bool = False,
    vocabulary: int = 300,
    values: Mapping[str, Any] | None = None,
) -> Path:
    """A small model; `values` are more metadata of its architecture (`pooling_type`)."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if f16 else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(2048)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for key, value in (values or {}).items():
        name = f"{architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_token_list([f"token{n}" for n in range(vocabulary)])
    writer.add_token_scores([0.5] * vocabulary)
    writer.add_chat_template("{{ messages }}")
    random = np.random.default_rng(0)
    kind = np.float16 if f16 else np.float32
    writer.add_tensor("token_embd.weight", random.standard_normal((vocabulary, 64)).astype(kind))
    writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    blocks = gguf.quants.quantize(random.standard_normal((3, 64)).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
