"""What to preload: models on the command line, tables of a TOML file, or names in the environment. Nothing is asked."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway_service.config import UsageError
from slipway_service.weights.names import RepoId, Revision
from slipway_service.weights.selection import (
    DefaultSelection,
    EverySelection,
    PatternSelection,
    Selection,
    VariantSelection,
)

LISTS = ("SLIPWAY_PRELOAD", "HF_PRELOAD_TARGETS")
"""Variables that name targets, separated by commas; the first that is set counts."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_KEYS: Mapping[str, type] = {"model": str, "revision": str, "variant": str, "files": list, "exclude": list, "all": bool}
_WORDS: Mapping[type, str] = {str: "a text", list: "a list of texts", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which files, as it is said everywhere: at most one of a variant, globs (`files`, `exclude`), everything."""

    variant: str = ""
    files: Sequence[str] = ()
    exclude: Sequence[str] = ()
    everything: bool = False

    def selection(self) -> Selection:
        """What that means.

        Raises:
            ValueError: it says more than one thing, or a glob is none.
        """
        if sum(map(bool, (self.variant, self.files or self.exclude, self.everything))) > 1:
            raise ValueError("choose a variant, files, or all: one of them")
        if self.variant:
            return VariantSelection(self.variant)
        if self.files or self.exclude:
            return PatternSelection.parse(self.files, self.exclude)
        return EverySelection() if self.everything else DefaultSelection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model to have in the cache; `name` is what people call it: `embedding`, or the model as it was written."""

    name: str
    repo: RepoId
    revision: Revision
    selection: Selection

    @classmethod
    def parse(cls, name: str, model: str, revision: str, choice: Choice) -> "Target":
        """From `owner/name`, or `owner/name@revision` where `revision` is empty.

        Raises:
            ValueError: something of it is wrong.
        """
        repo, at, behind = model.partition("@")
        if at and (not behind or revision):
            raise ValueError(f"{model}: give one revision, behind the @")
        return cls(
            name=name,
            repo=RepoId.parse(repo),
            revision=Revision.parse_or_default(revision or behind),
            selection=choice.selection(),
        )


def targets(
    models: Sequence[str], choice: Choice, file: Path | None, environment: Mapping[str, str]
) -> tuple[Target, ...]:
    """Everything that is asked for: models and file together, or else what the environment names.

    Args:
        models: `owner/name[@revision]`; the choice is for these alone.

    Raises:
        UsageError: something is wrong, all of it said at once; or nothing is asked for.
    """
    wrong: list[str] = []
    found = [it for model in models if (it := _parsed(wrong, model, model, "", choice))]
    if file is not None:
        found += _of_file(wrong, file)
    if not models and file is None:
        if choice != Choice():
            wrong.append("--variant, --include, --exclude and --all are for models on the command line")
        found += _of_environment(wrong, environment)
    if wrong:
        raise UsageError(*wrong)
    if not found:
        raise UsageError(f"nothing to preload: name models, give a --file, or set {LISTS[0]}")
    return tuple(found)


def _parsed(wrong: list[str], name: str, model: str, revision: str, choice: Choice) -> Target | None:
    try:
        return Target.parse(name, model, revision, choice)
    except ValueError as error:
        wrong.append(f"{name}: {error}")
        return None


def _of_file(wrong: list[str], file: Path) -> Iterable[Target]:
    """One target for each table: `[embedding]` with `model` and, as needed, the other keys."""
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    for name, table in tables.items():
        if problem := _wrong_table(table):
            wrong.append(f"{file}: {name}: {problem}")
            continue
        choice = Choice(
            variant=table.get("variant", ""),
            files=table.get("files", ()),
            exclude=table.get("exclude", ()),
            everything=table.get("all", False),
        )
        if target := _parsed(wrong, name, table["model"], table.get("revision", ""), choice):
            yield target


def _wrong_table(table: Any) -> str:
    if not isinstance(table, dict):
        return 'a table is expected: [embedding], then model = "owner/name"'
    if unknown := table.keys() - _KEYS.keys():
        return f"unknown {', '.join(sorted(unknown))}; there are {', '.join(_KEYS)}"
    for key, value in table.items():
        texts = value if isinstance(value, list) else ()
        if not isinstance(value, _KEYS[key]) or not all(isinstance(text, str) for text in texts):
            return f"{key} is not {_WORDS[_KEYS[key]]}"
    return "" if "model" in table else "model is missing"


def _of_environment(wrong: list[str], environment: Mapping[str, str]) -> Iterable[Target]:
    listed = next((name for name in LISTS if environment.get(name)), "")
    for name in _split(environment.get(listed, "")):
        if not _NAME.fullmatch(name):
            wrong.append(f"{listed}: {name!r} is no name of a target; models go on the command line")
            continue
        prefix = f"HF_{name.upper().replace('-', '_')}_"
        if not (model := environment.get(prefix + "MODEL_ID", "")):
            wrong.append(f"{prefix}MODEL_ID is not set, and {listed} names {name}")
            continue
        choice = Choice(
            variant=environment.get(prefix + "VARIANT", ""), files=_split(environment.get(prefix + "FILES", ""))
        )
        if target := _parsed(wrong, name, model, environment.get(prefix + "REVISION", ""), choice):
            yield target


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
