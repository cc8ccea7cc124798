"""What the Hub derives from a repository's files: tags, config, parameter counts, the model card's header."""

import json
import os
import re
import struct
from collections.abc import Mapping
from typing import Any

import yaml

from tests.hub.files import File
from tests.hub.gguf_header import read_header

_CARD_BYTES = 1 << 20
_HEADER_BYTES = 32 << 20


def derived_info(files: Mapping[str, File]) -> dict[str, Any]:
    """Fields of the model object that come from the files of a commit."""
    card = _card_data(files.get("README.md"))
    info: dict[str, Any] = {"cardData": card or None, "tags": _card_tags(card)}
    for name in ("pipeline_tag", "library_name"):
        if isinstance(card.get(name), str):
            info[name] = card[name]
    config = info["config"] = _config(files.get("config.json"), files.get("tokenizer_config.json"))
    shards = [file for path, file in sorted(files.items()) if path.endswith(".safetensors")]
    ggufs = [file for path, file in sorted(files.items()) if path.endswith(".gguf") and "mmproj" not in path]
    if shards:
        info["tags"].append("safetensors")
        info["safetensors"] = _safetensors(shards)
    if ggufs:
        info["tags"].append("gguf")
        info["gguf"] = _gguf(ggufs)
    if config and "model_type" in config:
        info["tags"].append(config["model_type"])
        info.setdefault("library_name", "transformers")
    if "chat_template" in (info.get("gguf") or {}):
        info["tags"].append("conversational")
    return info


def _read(file: File | None, at_most: int, start: int = 0) -> bytes:
    return os.pread(file.blob.fd, at_most, start) if file else b""


def _card_data(readme: File | None) -> dict[str, Any]:
    match = re.match(r"---\r?\n(.*?)\r?\n---", _read(readme, _CARD_BYTES).decode(errors="replace"), re.DOTALL)
    data = yaml.safe_load(match[1]) if match else None
    return data if isinstance(data, dict) else {}


def _card_tags(card: dict[str, Any]) -> list[str]:
    tags = list(card.get("tags") or [])
    for key, prefix in (("license", "license:"), ("base_model", "base_model:"), ("datasets", "dataset:")):
        value = card.get(key) or []
        tags += [f"{prefix}{item}" for item in ([value] if isinstance(value, str) else value)]
    language = card.get("language") or []
    return tags + ([language] if isinstance(language, str) else list(language))


def _config(config: File | None, tokenizer: File | None) -> dict[str, Any] | None:
    """The part of config.json that the Hub shows, with the special tokens and the chat template."""
    if config is None:
        return None
    full = json.loads(_read(config, _CARD_BYTES))
    shown = {name: full[name] for name in ("architectures", "model_type") if name in full}
    if tokenizer is not None:
        settings = json.loads(_read(tokenizer, _CARD_BYTES))
        names = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")
        shown["tokenizer_config"] = {name: settings[name] for name in names if name in settings}
    return shown


def _safetensors(shards: list[File]) -> dict[str, Any] | None:
    """Parameters by type over all shards; None if a header does not parse."""
    counts: dict[str, int] = {}
    for shard in shards:
        prefix = _read(shard, 8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _HEADER_BYTES + 1
        if size > _HEADER_BYTES:
            return None
        try:
            header = json.loads(_read(shard, size, 8))
        except ValueError:
            return None
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for extent in tensor["shape"]:
                    count *= extent
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + count
    return {"parameters": counts, "total": sum(counts.values())}


def _gguf(files: list[File]) -> dict[str, Any] | None:
    """What the Hub says of a repository's first GGUF (all its parts); None if it is not one."""
    whole = files[0].path.partition("-00001-of-")[0]
    headers = [read_header(file.blob.path) for file in files if file.path.startswith(whole)]
    if headers[0] is None:
        return None
    values = headers[0][0]
    architecture = values.get("general.architecture")
    shown = {
        "total": sum(header[1] for header in headers if header),
        "architecture": architecture,
        "context_length": values.get(f"{architecture}.context_length"),
        "chat_template": values.get("tokenizer.chat_template"),
        "bos_token": _token(values, "bos"),
        "eos_token": _token(values, "eos"),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _token(values: dict[str, Any], which: str) -> str | None:
    tokens, index = values.get("tokenizer.ggml.tokens"), values.get(f"tokenizer.ggml.{which}_token_id")
    return tokens[index] if isinstance(tokens, list) and isinstance(index, int) else None
