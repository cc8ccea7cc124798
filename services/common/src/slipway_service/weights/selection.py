"""Which files of a commit are meant: a variant, patterns, everything, or what a person most likely wants."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import Self

from slipway_service.fault import Fault, Reason
from slipway_service.weights.duplicates import duplicates, told
from slipway_service.weights.files import RepoFile
from slipway_service.weights.shards import split_name
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.variants import preferred_projector

MAX_PATTERNS = 64
"""So many patterns a list; each is tried on each of a repository's files."""

MAX_PATTERN_LENGTH = 256

_SHOWN_NAMES = 40
"""So many variants an error lists; a repository may have thousands."""


@dataclass(frozen=True, slots=True)
class DefaultSelection:
    """Nothing was chosen."""


@dataclass(frozen=True, slots=True)
class EverySelection:
    """Every file."""


@dataclass(frozen=True, slots=True)
class VariantSelection:
    """One variant by its name, with the configuration and tokenizer files beside it."""

    variant: str


@dataclass(frozen=True, slots=True)
class PatternSelection:
    """Files by shell globs, where `*` also matches `/`.

    A file is selected when one of `include` matches (empty: every file is), unless one of `exclude` does.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, include: Iterable[str], exclude: Iterable[str]) -> Self:
        """The selection.

        Raises:
            ValueError: there are too many patterns, or one is empty or too long.
        """
        parsed = cls(tuple(include), tuple(exclude))
        for patterns in (parsed.include, parsed.exclude):
            if len(patterns) > MAX_PATTERNS:
                raise ValueError(f"give at most {MAX_PATTERNS} patterns")
            if not all(0 < len(pattern) <= MAX_PATTERN_LENGTH for pattern in patterns):
                raise ValueError(f"give patterns of 1 to {MAX_PATTERN_LENGTH} characters")
        return parsed


Selection = DefaultSelection | EverySelection | VariantSelection | PatternSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedFiles:
    """What a selection came to, as `slipway.registry.v1.SelectedFiles` has it.

    Attributes:
        files: the files, by path.
        variant: the variant taken; empty when the selection is not one variant.
        explanation: what was left out and why, in words; empty when nothing was.
    """

    files: tuple[RepoFile, ...]
    variant: str = ""
    explanation: str = ""

    @property
    def size_bytes(self) -> int:
        """Sum of the files' sizes."""
        return sum(file.size_bytes for file in self.files)


def select(files: Sequence[RepoFile], variants: Sequence[Variant], selection: Selection) -> SelectedFiles:
    """The files of a commit that a selection means; `variants` are those of `find_variants(files)`.

    Raises:
        Fault: VARIANT_NOT_FOUND, SELECTION_EMPTY.
    """
    match selection:
        case EverySelection():
            chosen = SelectedFiles(files=tuple(files))
        case PatternSelection():
            chosen = SelectedFiles(files=_matching(files, selection))
        case VariantSelection(name):
            chosen = _with_companions(files, _named(variants, name))
        case DefaultSelection():
            chosen = _default(files, variants)
    if not chosen.files:
        raise Fault(Reason.SELECTION_EMPTY, f"The selection matches none of the {len(files)} files of this revision.")
    return replace(chosen, files=tuple(sorted(chosen.files, key=lambda file: file.path)))


def _default(files: Sequence[RepoFile], variants: Sequence[Variant]) -> SelectedFiles:
    variant = next((variant for variant in variants if variant.default), None)
    if variant is None:
        return SelectedFiles(files=tuple(files))
    if variant.format is not WeightFormat.GGUF:
        left_out = duplicates(files, variant)
        gone = {file.path for found in left_out.values() for file in found}
        return SelectedFiles(files=tuple(file for file in files if file.path not in gone), explanation=told(left_out))
    chosen = _with_companions(files, variant)
    others = len(variants) - 1
    why = f"Nothing was chosen: of {others + 1} variants, {variant.name} is taken. " if others else ""
    return replace(chosen, explanation=(why + chosen.explanation).strip())


def _matching(files: Iterable[RepoFile], patterns: PatternSelection) -> tuple[RepoFile, ...]:
    include, exclude = (_any_of(globs) for globs in (patterns.include or ("*",), patterns.exclude))
    return tuple(file for file in files if include.match(file.path) and not exclude.match(file.path))


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    """As huggingface_hub's `filter_repo_objects`: a pattern that ends with `/` means all that is below."""
    translated = (translate(glob + "*" if glob.endswith("/") else glob) for glob in globs)
    return re.compile("|".join(translated) or r"(?!)")


def _named(variants: Sequence[Variant], name: str) -> Variant:
    for variant in variants:
        if variant.name == name:
            return variant
    alike = [variant for variant in variants if variant.name.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    names = ", ".join(variant.name for variant in variants[:_SHOWN_NAMES]) or "none"
    more = f" and {len(variants) - _SHOWN_NAMES} more" if len(variants) > _SHOWN_NAMES else ""
    raise Fault(
        Reason.VARIANT_NOT_FOUND,
        f"This revision has no variant {name!r}. It has: {names}{more}.",
        facts={"variant": name},
        resource=name,
    )


# What serves beside weights: configuration, tokenizer, chat template, code, licence.
_COMPANION = re.compile(r".*\.(?:json|txt|model|jinja|py|tiktoken|bpe|vocab|spm|md|ya?ml|toml|cfg)", re.IGNORECASE)
_COMPANION_NAMES = frozenset({"LICENSE", "LICENCE", "NOTICE", "USE_POLICY"})
_INDEX = re.compile(r".*\.(?:safetensors|bin)\.index.*\.json")
_MODULE = re.compile(r"\d+_[A-Z]\w*(?:/.*)?")


def _with_companions(files: Iterable[RepoFile], variant: Variant) -> SelectedFiles:
    projector = preferred_projector(variant)
    weights = {file.path for file in variant.files} | ({projector.path} if projector else set())
    folders = {""} | {folder for path in weights for folder in _above(path)}
    indexes = _index_names(variant)
    chosen = tuple(file for file in files if file.path in weights or _is_companion(file, folders, indexes))
    return SelectedFiles(files=chosen, variant=variant.name, explanation=_about(variant, projector))


def _above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _is_companion(file: RepoFile, folders: set[str], indexes: set[str]) -> bool:
    name = file.path.name
    if file.path.folder not in folders and not _MODULE.fullmatch(file.path.folder):
        return False
    if _INDEX.fullmatch(name):
        return file.path in indexes
    return name.upper() in _COMPANION_NAMES or _COMPANION.fullmatch(name) is not None


def _index_names(variant: Variant) -> set[str]:
    """Where the index of a sharded set may be: `model.safetensors.index.json`, `model.safetensors.index.fp16.json` …"""
    names = set()
    for file in variant.files:
        stem, _, suffix = file.path.rpartition(".")
        whole = split_name(stem)[0]
        plain, _, qualifier = whole.rpartition(".")
        names |= {f"{whole}.{suffix}.index.json", f"{plain}.{suffix}.index.{qualifier}.json"}
    return names


def _about(variant: Variant, projector: RepoFile | None) -> str:
    said = []
    if projector and len(variant.projector_files) > 1:
        said.append(f"Of {len(variant.projector_files)} projectors, {projector.path} is taken.")
    if variant.missing:
        said.append(f"The revision lacks parts of it: {', '.join(variant.missing)}.")
    return " ".join(said)
