"""Lines and bars, from bytes in any pieces, over pipes and ptys."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slipway_runner.progress.parse import MAX_LINE, Bar, Lines, parse_bar

from tests.unit.runner.backends.data import LOGS, recorded


def read(*chunks: bytes) -> list[str]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)] + list(lines.close())


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        pytest.param(b"one\ntwo\n", ["one", "two"], id="lines"),
        pytest.param(b"one\r\ntwo\r\n", ["one", "two"], id="as a pty ends them"),
        pytest.param(b"one\rtwo\rthree", ["one", "two", "three"], id="redrawn in place"),
        pytest.param(b"\n\n  \r\r\n", [], id="nothing"),
        pytest.param(b"\x1b[31;1mred\x1b[0m\x1b(B text\n", ["red text"], id="colours"),
        pytest.param(b"\x1b]0;a title\x07text\x1b[A\x1b[K\n", ["text"], id="title and cursor"),
        pytest.param("모델 ███▌ 로드\n".encode(), ["모델 ███▌ 로드"], id="wide"),
        pytest.param(b"caf\xe9\n", ["caf\N{REPLACEMENT CHARACTER}"], id="no UTF-8"),
        pytest.param(b"x" * (MAX_LINE + 5) + b"\nnext\n", ["x" * MAX_LINE, "next"], id="far too long"),
    ],
)
def test_lines(data: bytes, lines: list[str]) -> None:
    assert read(data) == lines
    assert read(*(bytes([byte]) for byte in data)) == lines


def test_a_line_is_not_told_before_it_is_complete() -> None:
    lines = Lines()
    assert lines.feed(b"0.00.020.196 I srv  llama_ser") == ()
    assert lines.feed(b"ver: model loaded") == ()
    assert lines.feed(b"\n") == ("0.00.020.196 I srv  llama_server: model loaded",)


def test_a_bar_is_told_as_soon_as_it_stands_though_nothing_ends_its_line() -> None:
    lines = Lines()
    bar = "\rLoading checkpoint shards:  25%|██▌       | 1/4 [00:01<00:03,  1.20s/it]".encode()
    assert lines.feed(bar[:40]) == ()
    (line,) = lines.feed(bar[40:])
    assert parse_bar(line) == Bar("Loading checkpoint shards", 1, 4)
    assert lines.feed(b"\r") == ()


@pytest.mark.parametrize("name", LOGS)
@settings(max_examples=40)
@given(cuts=st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=200))
def test_how_a_log_is_cut_makes_no_difference(name: str, cuts: list[int]) -> None:
    data = recorded(name)
    assert read(*in_pieces(data, cuts)) == read(data)


SPLINTERS = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\x1b[0m",
        b"\x1b",
        b"[",
        b"]",
        b"50%|",
        " ██ ".encode(),
        b"| 1/2 [",
        b"x",
        b"%",
        b": ",
        b"\xe2\x96",
    ]
)


@given(splinters=st.lists(SPLINTERS, max_size=60), cuts=st.lists(st.integers(0, 1 << 20), max_size=60))
@example(splinters=[b"50%|", b"| 1/2 [", b"]", b"\x1b[0m", b"\r"], cuts=[3, 9, 12, 13])
def test_how_anything_is_cut_makes_no_difference(splinters: list[bytes], cuts: list[int]) -> None:
    data = b"".join(splinters)
    assert read(*in_pieces(data, cuts)) == read(data)


@pytest.mark.parametrize(
    ("line", "bar"),
    [
        (
            "Loading checkpoint shards:  25%|██▌       | 1/4 [00:01<00:03,  1.20s/it]",
            ("Loading checkpoint shards", 1, 4),
        ),
        ("Loading checkpoint shards: 25%|██▌ | 1/4", ("Loading checkpoint shards", 1, 4)),
        (
            "[백엔드 에러] Loading checkpoint shards:  25%|██▌       | 1/4",
            ("[백엔드 에러] Loading checkpoint shards", 1, 4),
        ),
        ("Loading weights:   0%|          | 0/219 [00:00<?, ?it/s]", ("Loading weights", 0, 219)),
        (
            "Loading safetensors checkpoint shards:  22% Completed | 2/9 [00:00<00:00,  9.44it/s]",
            ("Loading safetensors checkpoint shards", 2, 9),
        ),
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  42%|████▏     | 28/67 [00:01<00:01, 24.13it/s]",
            ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)", 28, 67),
        ),
        ("Loading: 100%|##########| 4/4 [00:02<00:00]", ("Loading", 4, 4)),
    ],
)
def test_bars(line: str, bar: tuple[str, int, int]) -> None:
    assert parse_bar(line) == Bar(*bar)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "memory at 25% of 1/4",
        "Loading weights:  50%|#####     | 5/0 [00:00<?]",
        "Loading weights:  50%|#####     | 5/4 [00:00<?]",
        "Loading weights:  50%|#####     | 1",
        'INFO:     127.0.0.1:33 - "GET /health HTTP/1.1" 200 OK',
    ],
)
def test_no_bars(line: str) -> None:
    assert parse_bar(line) is None


# As tqdm draws on a terminal: colours, each bar over the one before, nothing ended until the last.
DRAWER = r"""
import sys, time
for n in range(5):
    done = "\N{FULL BLOCK}" * (n * 2)
    sys.stderr.write(f"\r\x1b[32mLoading shards\x1b[0m: {n * 25:3}%|{done:10}| {n}/4 [00:0{n}<00:01,  1.00it/s]")
    sys.stderr.flush()
    sys.stdin.readline()
sys.stderr.write("\n")
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_each_bar_is_seen_while_it_stands(terminal: bool) -> None:
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen([sys.executable, "-c", DRAWER], stdin=subprocess.PIPE, stderr=theirs) as drawer:
        os.close(theirs)
        assert drawer.stdin
        lines = Lines()
        bars: list[Bar] = []
        for count in range(1, 6):  # it draws the next one only when told to
            while len(bars) < count:
                bars += [bar for line in lines.feed(os.read(ours, 7)) if (bar := parse_bar(line))]
            drawer.stdin.write(b"\n")
            drawer.stdin.flush()
        os.close(ours)
    assert [(bar.done, bar.total) for bar in bars] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
