"""A BERT as a Hugging Face folder and as GGUF."""

import json
import re
from pathlib import Path

import gguf

from tests.hub.models import bert, safetensors
from tests.hub.models.bert import Bert
from tests.hub.models.chat_gguf import Kind, finish, quantize

_GGUF_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "pooler.dense": "cls",
    "classifier": "cls.output",
}


def write_folder(model: Bert, directory: Path) -> None:
    """Write what transformers, sentence-transformers and vLLM read."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {_folder_name(name, model): tensor for name, tensor in model.tensors()}
    safetensors.write(directory / "model.safetensors", tensors, dtype="F32")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(names, bert.SPECIAL, strict=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": True,
        "model_max_length": model.positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **special,
    }
    files: dict[str, object] = {
        "config.json": model.config(),
        "tokenizer.json": model.tokenizer_json(),
        "tokenizer_config.json": settings,
        "special_tokens_map.json": special,
    }
    if not model.reranker:
        files |= _sentence_transformers(model)
    for name, value in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")
    (directory / "vocab.txt").write_text("\n".join(model.tokens) + "\n")


def write_gguf(model: Bert, path: Path, *, kind: Kind = Kind.F16) -> None:
    """Write an embedder (mean pooling) or a reranker (rank pooling) for llama-server."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(model.name)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind is Kind.F16 else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(model.positions)
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.feed_forward)
    writer.add_head_count(model.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if model.reranker else gguf.PoolingType.MEAN)
    if model.reranker:
        writer.add_classifier_output_labels(["LABEL_0"])
    _add_vocabulary(writer, model)
    for name, tensor in model.tensors():
        if name.startswith("pooler") and not model.reranker:
            continue  # GGUF has the pooler as part of a classifier only
        # Only the large matrices are halved: llama.cpp wants the rest, and all of a classifier, in F32.
        halved = tensor.ndim == 2 and not name.startswith(("classifier", "pooler", "embeddings.p", "embeddings.t"))
        writer.add_tensor(_gguf_name(name), quantize(tensor, kind if halved else Kind.F32))
    finish(writer)


def _add_vocabulary(writer: gguf.GGUFWriter, model: Bert) -> None:
    """llama.cpp marks the beginning of a word where WordPiece marks a continuation."""
    tokens = [
        token if token in bert.SPECIAL else token[2:] if token.startswith("##") else f"\u2581{token}"
        for token in model.tokens
    ]
    kinds = [gguf.TokenType.CONTROL if token in bert.SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(bert.PAD)
    writer.add_unk_token_id(bert.UNKNOWN)
    writer.add_bos_token_id(bert.CLS)
    writer.add_sep_token_id(bert.SEP)
    writer.add_eos_token_id(bert.SEP)
    writer.add_mask_token_id(bert.MASK)


def _folder_name(name: str, model: Bert) -> str:
    return f"bert.{name}" if model.reranker and not name.startswith("classifier") else name


def _gguf_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{_GGUF_NAMES[match[2]]}.{suffix}"
    return f"{_GGUF_NAMES[stem]}.{suffix}"


def _sentence_transformers(model: Bert) -> dict[str, object]:
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": model.hidden, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": model.positions, "do_lower_case": True},
    }
