"""What repeats a repository's weights in another framework's format, which nobody wants who did not ask for it."""

import re
from collections import defaultdict
from collections.abc import Sequence

from slipway_service.values import rounded_size
from slipway_service.weights.files import RepoFile
from slipway_service.weights.gguf_files import is_gguf
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.weight_sets import weight_format

_OTHERS = (
    ("TensorFlow", re.compile(r"(?:.*/)?(?:[^/]*\.h5|tf_model[^/]*|[^/]*\.tflite)")),
    ("Flax", re.compile(r"(?:.*/)?(?:[^/]*\.msgpack|flax_model[^/]*)")),
    ("Rust", re.compile(r".*\.ot")),
    ("OpenVINO", re.compile(r"openvino/.*|(?:.*/)?openvino_model[^/]*")),
    ("Core ML", re.compile(r"coreml/.*|.*\.ml(?:model|package)(?:/.*)?")),
    ("the original checkpoint", re.compile(r"original/.*")),
)

_SHOWN = 3
"""So many paths are named of each kind."""


def duplicates(files: Sequence[RepoFile], kept: Variant) -> dict[str, list[RepoFile]]:
    """What repeats the weights of `kept` (which is no GGUF), by framework.

    ONNX and PyTorch files only count as repetitions of safetensors, and PyTorch files only where safetensors lie beside
    them: a sentence-transformers module may have its weights in a pickle alone.
    """
    own = {file.path for file in kept.files}
    beside = {file.path.folder for file in files if weight_format(file) is WeightFormat.SAFETENSORS}
    found: dict[str, list[RepoFile]] = defaultdict(list)
    for file in files:
        framework = "" if file.path in own else _framework(file, kept.format, beside)
        if framework:
            found[framework].append(file)
    return found


def _framework(file: RepoFile, kept: WeightFormat, beside: set[str]) -> str:
    for framework, pattern in _OTHERS:
        if pattern.fullmatch(file.path):
            return framework
    if is_gguf(file):
        return "GGUF"
    if kept is not WeightFormat.SAFETENSORS:
        return ""
    form = weight_format(file)
    if form is WeightFormat.ONNX:
        return "ONNX"
    is_pickle = form is WeightFormat.PYTORCH and file.path.name.startswith("pytorch_model")
    return "PyTorch" if is_pickle and file.path.folder in beside else ""


def told(left_out: dict[str, list[RepoFile]]) -> str:
    """In words: what was left out, how much that was, and why. Empty when nothing was."""
    if not left_out:
        return ""
    parts = [f"{framework} ({_paths(found)})" for framework, found in sorted(left_out.items())]
    size = sum(file.size_bytes for found in left_out.values() for file in found)
    return f"Left out {rounded_size(size)} that repeat the weights for other frameworks: {', '.join(parts)}."


def _paths(files: Sequence[RepoFile]) -> str:
    shown = ", ".join(file.path for file in files[:_SHOWN])
    return shown if len(files) <= _SHOWN else f"{shown} and {len(files) - _SHOWN} more"
