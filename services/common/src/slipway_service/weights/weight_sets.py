"""Sets of safetensors, ONNX and PyTorch files by name: one for each precision and folder that there is."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slipway_service.weights.files import RepoFile
from slipway_service.weights.shards import WHOLE, Part, in_order, missing_paths, split_name
from slipway_service.weights.variant import Variant, WeightFormat

_FORMATS = (
    (re.compile(r"(?P<stem>.+)\.safetensors"), WeightFormat.SAFETENSORS),
    (re.compile(r"(?P<stem>.+)\.onnx(?:[_.]data(?:_\d+)?)?"), WeightFormat.ONNX),
    (re.compile(r"(?P<stem>(?:diffusion_)?pytorch_model.*)\.bin"), WeightFormat.PYTORCH),
    (re.compile(r"(?P<stem>.+)\.(?:pt|pth)"), WeightFormat.PYTORCH),
)

_NOT_WEIGHTS = re.compile(
    r"(?:optimizer|scheduler|scaler|rng_state|training_|trainer_|adapter_)|(?:.*[-_.])?lora[-_.]", re.IGNORECASE
)
"""Beginnings of what training leaves behind, and adapters: neither is a set of the model's weights."""

_USUAL = {
    WeightFormat.SAFETENSORS: re.compile(r"(?:diffusion_pytorch_)?model(?![a-z])"),
    WeightFormat.PYTORCH: re.compile(r"(?:diffusion_)?(?:pytorch_)?model(?![a-z])"),
    WeightFormat.ONNX: re.compile(r"model(?![a-z])"),
}
"""What the main set is called in each format; what follows it qualifies a set."""

_USUAL_FOLDER = {WeightFormat.ONNX: "onnx"}
"""Folder in which a format's files usually are, so that it need not be in a variant's name."""

_ONNX_PRECISION = re.compile(r"_(?P<qualifier>q\w*|u?int8|fp16|bnb4|quantized|[Oo][1-4])$")
"""Of an encoder or decoder, which have the main set's precision in their names."""

_LLAMA_SHARD = re.compile(r"consolidated\.(?P<no>\d\d)")

_MODULE_FOLDER = re.compile(r"\d+_[A-Z]\w*")
"""A module of a sentence-transformers model (`2_Dense`): its weights go with the main ones."""

_ELEMENT_TYPES = {
    "fp16": "F16",
    "f16": "F16",
    "bf16": "BF16",
    "fp32": "F32",
    "f32": "F32",
    "fp8": "FP8",
    "int8": "INT8",
    "uint8": "UINT8",
    "quantized": "INT8",
    "q8": "INT8",
    "q4": "Q4",
    "q4f16": "Q4F16",
    "bnb4": "BNB4",
}
_ELEMENT_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "FP8": 8.0, "INT8": 8.0, "UINT8": 8.0}


@dataclass(frozen=True, slots=True, order=True)
class _Key:
    format: WeightFormat
    folder: str
    qualifier: str


def weight_format(file: RepoFile) -> WeightFormat | None:
    """The format of a file of weights, by its name; None for everything else and for GGUF."""
    found = _recognised(file)
    return found[0] if found else None


def _recognised(file: RepoFile) -> tuple[WeightFormat, str] | None:
    name = file.path.name
    if _NOT_WEIGHTS.match(name):
        return None
    for pattern, kind in _FORMATS:
        if match := pattern.fullmatch(name):
            return kind, match["stem"]
    return None


def weight_sets(files: Iterable[RepoFile]) -> list[Variant]:
    """Every set there is, in the order of names; two of one name where a set is there both whole and in shards."""
    wholes: dict[tuple[_Key, str], dict[Part, RepoFile]] = defaultdict(dict)
    for file in files:
        if recognised := _recognised(file):
            key, whole, part = _place(file, *recognised)
            wholes[key, whole][part] = file
    main = {key.format for key, _ in wholes if not key.folder}
    modules = {place for place in wholes if _MODULE_FOLDER.fullmatch(place[0].folder) and place[0].format in main}
    sets: dict[tuple[_Key, str], list[Mapping[Part, RepoFile]]] = defaultdict(list)
    for key, whole in sorted(wholes.keys() - modules, key=lambda place: (len(wholes[place]), place)):
        sets[key, "" if key.format is WeightFormat.ONNX else whole].append(wholes[key, whole])
    for key, whole in sets:
        if not key.folder:
            sets[key, whole] += [wholes[place] for place in sorted(modules) if place[0].format is key.format]
    found = [_variant(key, parts) for (key, _), parts in sets.items()]
    return sorted(found, key=lambda variant: variant.name)


def _place(file: RepoFile, kind: WeightFormat, stem: str) -> tuple[_Key, str, Part]:
    """The set that a file is in, the whole that it is (a part of), and which part it is."""
    if kind is WeightFormat.ONNX:
        # Graph and external data belong to one set, and so do encoder and decoder.
        return _Key(kind, file.path.folder, _onnx_qualifier(stem)), file.path.name, WHOLE
    if match := _LLAMA_SHARD.fullmatch(stem):
        return _Key(kind, file.path.folder, "consolidated"), "consolidated", Part(int(match["no"]) + 1, 0)
    base, part = split_name(stem)
    return _Key(kind, file.path.folder, _qualifier(base, _USUAL[kind])), f"{base}-of-{part.count}", part


def _qualifier(base: str, usual: re.Pattern[str]) -> str:
    match = usual.match(base)
    return base[match.end() :].strip("-_. ") if match else base


def _onnx_qualifier(stem: str) -> str:
    if _USUAL[WeightFormat.ONNX].match(stem):
        return _qualifier(stem, _USUAL[WeightFormat.ONNX])
    match = _ONNX_PRECISION.search(stem)
    return match["qualifier"] if match else ""


def _variant(key: _Key, wholes: Sequence[Mapping[Part, RepoFile]]) -> Variant:
    element_type = _ELEMENT_TYPES.get(key.qualifier.lower(), "")
    return Variant(
        name=_name(key),
        format=key.format,
        quantization=element_type,
        bits_per_weight=_ELEMENT_BITS.get(element_type),
        files=tuple(file for parts in wholes for file in in_order(parts)),
        missing=tuple(path for parts in wholes for path in missing_paths(parts)),
        model=key.folder,
    )


def _name(key: _Key) -> str:
    folder = "" if key.folder == _USUAL_FOLDER.get(key.format) else key.folder
    return "-".join(part for part in (key.format.lower(), folder, key.qualifier) if part)
