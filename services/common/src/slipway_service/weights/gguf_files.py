"""GGUF files by name: which are quantisations of the model, which are parts of one, which are something else.

Understands the habits of those who upload them: the label in the name (`Qwen2.5-7B-Instruct-Q4_K_M.gguf`,
`llama-2-7b.Q4_K_M.gguf`, `qwen2.5-7b-instruct-q4_k_m.gguf`, `UD-Q4_K_XL`) or in a folder
(`Q4_K_M/x-00001-of-00003.gguf`), splits in llama.cpp's form, projectors (`mmproj-F16.gguf`) and importance matrices
(`imatrix_unsloth.gguf`) beside them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from slipway_service.weights.files import RepoFile
from slipway_service.weights.quantization import find_label, nominal_bits
from slipway_service.weights.shards import Part, in_order, missing_paths, split_name
from slipway_service.weights.variant import Variant, WeightFormat

SUFFIX = ".gguf"

_PROJECTOR = re.compile(r"(?:^|[-_./])mmproj(?:$|[-_./])", re.IGNORECASE)
_IMATRIX = re.compile(r"(?:^|[-_.])imatrix(?:$|[-_.])", re.IGNORECASE)
_EDGES = "-_. "


def is_gguf(file: RepoFile) -> bool:
    """Whether the file is called a GGUF."""
    return file.path.lower().endswith(SUFFIX)


def is_projector(file: RepoFile) -> bool:
    """Whether the file is a multimodal projector: it goes with a model and cannot be loaded alone."""
    return is_gguf(file) and _PROJECTOR.search(file.path[: -len(SUFFIX)]) is not None


def is_importance_matrix(file: RepoFile) -> bool:
    """Whether the file is what quantisers measured, not weights; a label says that it is quantised *with* one."""
    stem = file.path.name[: -len(SUFFIX)]
    return is_gguf(file) and _IMATRIX.search(stem) is not None and find_label(stem) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Files that make up one set of weights."""

    folder: str
    stem: str
    label: str
    base: str
    outer: str
    parts: Mapping[Part, RepoFile]

    @property
    def whole_name(self) -> str:
        part = next(iter(self.parts))
        count = f"-of-{part.count}" if part.count else ""
        return _joined(self.folder, self.stem + count)


def gguf_variants(files: Iterable[RepoFile]) -> list[Variant]:
    """Every quantisation there is, in the order of names."""
    weights: list[RepoFile] = []
    projectors: list[RepoFile] = []
    for file in files:
        if is_projector(file):
            projectors.append(file)
        elif is_gguf(file) and not is_importance_matrix(file):
            weights.append(file)
    groups = _groups(weights)
    names = _names(groups)
    beside = _Projectors(projectors)
    found = [_variant(group, name, beside.of(group.folder)) for group, name in zip(groups, names, strict=True)]
    return sorted(found, key=lambda variant: variant.name)


def _variant(group: _Group, name: str, projectors: tuple[RepoFile, ...]) -> Variant:
    return Variant(
        name=name,
        format=WeightFormat.GGUF,
        quantization=group.label,
        bits_per_weight=nominal_bits(group.label),
        files=in_order(group.parts),
        projector_files=projectors,
        missing=missing_paths(group.parts),
        model=_joined(group.outer, group.base),
    )


def _groups(files: Iterable[RepoFile]) -> list[_Group]:
    parts: dict[tuple[str, str, int], dict[Part, RepoFile]] = defaultdict(dict)
    for file in files:
        stem, part = split_name(file.path.name[: -len(SUFFIX)])
        parts[file.path.folder, stem, part.count].setdefault(part, file)
    return [_group(folder, stem, members) for (folder, stem, _), members in sorted(parts.items())]


def _group(folder: str, stem: str, parts: Mapping[Part, RepoFile]) -> _Group:
    base = stem
    folders = folder.split("/") if folder else []
    in_stem = find_label(stem)
    if in_stem:
        label, start, end = in_stem
        base = (stem[:start].rstrip(_EDGES) + stem[end:]).strip(_EDGES)
    else:
        label = next((found[0] for part in reversed(folders) if (found := find_label(part))), "")
    outer = "/".join(part for part in folders if not label or _label_of(part) != label)
    return _Group(folder=folder, stem=stem, label=label, base=base, outer=outer, parts=parts)


def _label_of(text: str) -> str:
    found = find_label(text)
    return found[0] if found else ""


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


_SCHEMES: tuple[Callable[[_Group], str], ...] = (
    lambda group: group.label or group.base or "gguf",
    lambda group: _joined(group.outer, group.label or group.base),
    lambda group: _joined(group.base, group.label),
    lambda group: _joined(group.outer, group.base, group.label),
    lambda group: group.whole_name,
)
"""How to call a variant, the shortest first."""


def _names(groups: Sequence[_Group]) -> list[str]:
    """A name for each group: the shortest scheme that tells it from all others of its short name."""
    alike: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        alike[_SCHEMES[0](group)].append(group)
    named = {id(group): name for same in alike.values() for group, name in _told_apart(same)}
    taken = Counter(named.values())
    return [name if taken[name := named[id(group)]] == 1 else next(iter(group.parts.values())).path for group in groups]


def _told_apart(groups: Sequence[_Group]) -> list[tuple[_Group, str]]:
    for scheme in _SCHEMES:
        names = [scheme(group) for group in groups]
        if len(set(names)) == len(names):
            break
    return list(zip(groups, names, strict=True))


class _Projectors:
    """Finds the projectors that go with weights in a folder: the nearest above them, else any there are."""

    def __init__(self, files: Iterable[RepoFile]) -> None:
        self._by_folder: dict[str, list[RepoFile]] = defaultdict(list)
        for file in files:
            self._by_folder[file.path.folder].append(file)
        self._all = tuple(file for folder in sorted(self._by_folder) for file in self._by_folder[folder])

    def of(self, folder: str) -> tuple[RepoFile, ...]:
        while folder and folder not in self._by_folder:
            folder = folder.rpartition("/")[0]
        return tuple(self._by_folder[folder]) if folder in self._by_folder else self._all
