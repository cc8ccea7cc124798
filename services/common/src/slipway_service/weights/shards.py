"""Files that are parts of one whole, by name: `x-00001-of-00003.gguf`, `model-00001-of-00002.fp16.safetensors`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

SHOWN_MISSING = 8
"""So many missing parts are named; a file may claim to be one of 99,999."""

_NUMBERED = re.compile(r"[-_](?P<no>\d{5,6})-of-(?P<count>\d{5,6})")


@dataclass(frozen=True, slots=True)
class Part:
    """A part's number, from 1, and how many there are; a count of 0 is a whole file, which is not one of one."""

    number: int
    count: int


WHOLE = Part(1, 0)


def split_name(stem: str) -> tuple[str, Part]:
    """The name that all parts have in common, and which part this is."""
    match = _NUMBERED.search(stem)
    if match is None or int(match["count"]) == 0:
        return stem, WHOLE
    return stem[: match.start()] + stem[match.end() :], Part(int(match["no"]), int(match["count"]))


def in_order(parts: Mapping[Part, RepoFile]) -> tuple[RepoFile, ...]:
    """The files by their numbers."""
    return tuple(parts[part] for part in sorted(parts, key=lambda part: part.number))


def missing_paths(parts: Mapping[Part, RepoFile]) -> tuple[str, ...]:
    """Paths of the first parts that should be there and are not."""
    return tuple(path for path, _ in zip(_absent(parts), range(SHOWN_MISSING), strict=False))


def _absent(parts: Mapping[Part, RepoFile]) -> Iterator[str]:
    part, file = next(iter(parts.items()))
    there = {part.number for part in parts}
    for number in range(1, part.count + 1):
        if number not in there:
            yield _renumbered(file.path, number)


def _renumbered(path: FilePath, number: int) -> str:
    match = _NUMBERED.search(path.name)
    if match is None:
        return path
    start = len(path) - len(path.name)
    return path[: start + match.start("no")] + str(number).zfill(len(match["no"])) + path[start + match.end("no") :]
