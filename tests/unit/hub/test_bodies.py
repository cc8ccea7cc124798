import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub.bodies import Body, Cut, FileSlice, corrupt, length, part, read, split

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def fd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path: Path = tmp_path_factory.mktemp("body") / "content"
    path.write_bytes(CONTENT)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@given(cuts=st.lists(st.integers(0, len(CONTENT)), min_size=2, max_size=6), kinds=st.lists(st.booleans(), min_size=5))
def test_any_part_of_any_body(fd: int, cuts: list[int], kinds: list[bool]) -> None:
    edges = [0, *sorted(cuts), len(CONTENT)]
    body: Body = tuple(
        FileSlice(fd, start, stop) if in_file else CONTENT[start:stop]
        for start, stop, in_file in zip(edges, edges[1:], [*kinds, *[True] * len(edges)], strict=False)
    )
    assert length(body) == len(CONTENT)
    start, stop = cuts[0], cuts[1]
    assert read(part(body, start, stop)) == CONTENT[start:stop]
    left, right = split(body, start)
    assert (read(left), read(right)) == (CONTENT[:start], CONTENT[start:])


def test_one_flipped_byte(fd: int) -> None:
    damaged = read(corrupt((CONTENT[:100], FileSlice(fd, 100, len(CONTENT))), 300))
    assert [i for i, (a, b) in enumerate(zip(damaged, CONTENT, strict=True)) if a != b] == [300]


def test_mishaps_stay_where_they_are(fd: int) -> None:
    body: Body = (b"ab", Cut(reset=True), b"cd")
    assert split(body, 2) == ((b"ab", Cut(reset=True)), (b"cd",))
    assert split(body, 3) == ((b"ab", Cut(reset=True), b"c"), (b"d",))
