"""All the ways to have a repository's weights, and the one that is taken when nobody chooses."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from slipway_service.weights.files import RepoFile
from slipway_service.weights.gguf_files import gguf_variants
from slipway_service.weights.quantization import find_label, preference
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.weight_sets import weight_sets

FORMAT_ORDER = (WeightFormat.SAFETENSORS, WeightFormat.GGUF, WeightFormat.PYTORCH, WeightFormat.ONNX)
"""Which format the default is taken from: the source of all others first, pickles only where there is nothing safe."""

_PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")
"""Which projector is taken where several go with the weights: 16 bit is what llama.cpp's documentation uses."""


def find_variants(files: Iterable[RepoFile]) -> tuple[Variant, ...]:
    """The variants of a commit, by name; exactly one is the default where any can be loaded. Linear in the files."""
    files = tuple(files)
    found = _uniquely_named([*gguf_variants(files), *weight_sets(files)])
    default = default_of(found)
    return tuple(replace(variant, default=variant is default) for variant in found)


def default_of(variants: Sequence[Variant]) -> Variant | None:
    """The variant for those who choose nothing; None where none is complete."""
    whole = [variant for variant in variants if not variant.missing]
    return min(whole, key=_rank, default=None)


def _rank(variant: Variant) -> tuple[object, ...]:
    """Sets at the top before those in folders (GGUFs live anywhere), then formats, then what label or name promise."""
    depth = variant.files[0].path.count("/")
    if variant.format is WeightFormat.GGUF:
        wish = preference(variant.quantization)
        aside = False
    else:
        wish = variant.name != variant.format.lower()
        aside = depth > 0 and wish
    return aside, FORMAT_ORDER.index(variant.format), wish, depth, variant.name


def preferred_projector(variant: Variant) -> RepoFile | None:
    """The one of `projector_files` to take; None where there is none."""
    return min(variant.projector_files, key=_projector_rank, default=None)


def _projector_rank(file: RepoFile) -> tuple[int, str]:
    found = find_label(file.path.name)
    label = found[0] if found else ""
    return (_PROJECTOR_ORDER.index(label) if label in _PROJECTOR_ORDER else len(_PROJECTOR_ORDER)), file.path


def _uniquely_named(variants: Iterable[Variant]) -> list[Variant]:
    """The first keeps a name that several have; the others are called as their first file."""
    taken: set[str] = set()
    unique = []
    for variant in variants:
        named = replace(variant, name=variant.files[0].path) if variant.name in taken else variant
        taken.add(named.name)
        unique.append(named)
    return unique
