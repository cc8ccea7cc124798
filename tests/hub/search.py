"""`GET /api/models`: the filters, sorts and pages that `HfApi.list_models` asks for."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.hub.messages import Request, join

_SORTS = ("trendingScore", "downloads", "likes", "lastModified", "createdAt")
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
# Which programs the Hub offers for which files; enough for its `apps` filter.
_APP_TAGS = {"llama.cpp": "gguf", "ollama": "gguf", "lmstudio": "gguf", "vllm": "safetensors", "sglang": "safetensors"}


def find(models: Iterable[Mapping[str, Any]], request: Request) -> list[Mapping[str, Any]]:
    """The models that pass every filter, in the order asked for.

    Raises:
        ValueError: an unknown sort key or a parameter range that does not parse.
    """
    query = request.query
    found = [model for model in models if _passes(model, query)]
    key = query.get("sort", ["trendingScore"])[-1]
    if key not in _SORTS:
        raise ValueError(f"Invalid sort: {key}")
    found.sort(key=lambda model: model["id"])
    found.sort(key=lambda model: model.get(key, 0), reverse=query.get("direction", ["-1"])[-1] != "1")
    return found


def _passes(model: Mapping[str, Any], query: Mapping[str, list[str]]) -> bool:
    tags = {str(tag).lower() for tag in model["tags"]}
    name = model["id"].lower()
    words = " ".join(query.get("search", [])).lower().split()
    authors = query.get("author", [])
    needed = join(query.get("filter")) + join(query.get("tags")) + join(query.get("library"))
    pipeline, gated = query.get("pipeline_tag"), query.get("gated")
    apps = join(query.get("apps"))
    return (
        all(word in name for word in words)
        and all(model.get("author") == author for author in authors)
        and all(tag.lower() in tags for tag in needed)
        and (not pipeline or model.get("pipeline_tag") == pipeline[-1])
        and (not gated or bool(model["gated"]) == (gated[-1].lower() in {"true", "1"}))
        and all(_APP_TAGS.get(app) in tags for app in apps)
        and "inference" not in query
        and "inference_provider" not in query
        and _in_range(_parameters(model), query.get("num_parameters", [""])[-1])
    )


def _parameters(model: Mapping[str, Any]) -> int | None:
    for source in ("safetensors", "gguf"):
        if model.get(source):
            return int(model[source]["total"])
    return None


def _in_range(count: int | None, wanted: str) -> bool:
    """Whether a parameter count lies in a range such as ``min:6B,max:128B``."""
    if not wanted:
        return True
    bounds = {"min": 0.0, "max": float("inf")}
    for item in wanted.split(","):
        match = re.fullmatch(r"(min|max):(\d+(?:\.\d+)?)([KMBT]?)", item)
        if match is None:
            raise ValueError(f"Invalid num_parameters: {wanted}")
        bounds[match[1]] = float(match[2]) * _UNITS[match[3]]
    return count is not None and bounds["min"] <= count <= bounds["max"]


def page(items: list[Any], request: Request, base_url: str, *, size: int) -> tuple[list[Any], dict[str, str]]:
    """One page of a listing, and the Link header to the next one: absolute, with every parameter kept.

    Raises:
        ValueError: the cursor is not one of ours.
    """
    start = _offset(request.query.get("cursor", [""])[-1])
    shown = items[start : start + size]
    if start + size >= len(items):
        return shown, {}
    cursor = base64.urlsafe_b64encode(json.dumps({"after": start + size}).encode()).decode()
    kept = [item for item in parse_qsl(request.target.partition("?")[2], keep_blank_values=True) if item[0] != "cursor"]
    url = f"{base_url}{request.path}?{urlencode([*kept, ('cursor', cursor)])}"
    return shown, {"Link": f'<{url}>; rel="next"'}


def _offset(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        return int(json.loads(base64.urlsafe_b64decode(cursor))["after"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise ValueError("Invalid cursor") from None
