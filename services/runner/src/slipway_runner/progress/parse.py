"""From the bytes of a log to its lines, and from a line to a progress bar.

Backends write as they please: a line in several writes, a bar redrawn after `\\r` with no end of line for minutes, ANSI
colours on a pty, characters cut in two. What comes out here depends on the bytes alone, not on how they were cut.
"""

import codecs
import re
from dataclasses import dataclass

MAX_LINE = 64 * 1024
"""Characters of a line that are kept; what a reader looks for stands far before that."""

MAX_BAR = 700
"""Characters that a bar takes at most; on a wide terminal it is as wide as that."""

# ECMA-48: CSI sequences (colours, cursor), OSC sequences (window title) ended by BEL or ST, and short escapes.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[ -/]?[0-Z\\^_a-~])")
_ESCAPE_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256}\x1b?|[ -/])?\Z")
_ESCAPE_MAX = 260

# tqdm writes a whole bar, "desc:  25%|##   | 1/4 [00:01<00:03,  1.2s/it]", and no end of line until it is complete:
# the bracket is the end, or each bar would be seen only when the next one comes.
_BAR_END = re.compile(r"\d%[^\r\n]{0,500}? \d\S{0,20}/\S{1,20} \[[^\]\r\n]{0,100}\]")
_LINE_END = re.compile(r"[\r\n]")

# The two forms seen: tqdm's own, and vLLM's and SGLang's "desc:  22% Completed | 2/9 [". The bracket is missing where
# a program cut the bar short.
_BAR = re.compile(
    r"(?P<desc>[^:|]*?): +\d{1,3}%(?:\|[^|]*\|| Completed \|) *(?P<done>\d+)/(?P<total>\d+)(?= *\[| *$)",
)


class Lines:
    """Cuts a stream of bytes into lines: at `\\n`, at `\\r`, and after a progress bar's closing bracket.

    Lines come without their end, trailing spaces and ANSI sequences; empty ones are left out. Bytes that are no UTF-8
    become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""
        self._pending = ""

    def feed(self, chunk: bytes) -> tuple[str, ...]:
        """Return the lines that `chunk` completes."""
        text = self._plain(self._decoder.decode(chunk))
        self._pending += text
        if not (_LINE_END.search(text) or "]" in text):
            self._pending = self._pending[:MAX_LINE]
            return ()
        lines, self._pending = _cut(self._pending)
        return lines

    def close(self) -> tuple[str, ...]:
        """Return what is left when nothing more will come."""
        lines, rest = _cut(self._pending + self._decoder.decode(b"", final=True))
        self._pending = ""
        return (*lines, rest.rstrip()) if rest.strip() else lines

    def _plain(self, text: str) -> str:
        """Take out escape sequences; the begin of one that is not complete yet is kept for the next chunk."""
        text = self._escape + text
        begun = _ESCAPE_BEGUN.search(text, max(0, len(text) - _ESCAPE_MAX))
        cut = begun.start() if begun else len(text)
        self._escape = text[cut:]
        return _ESCAPE.sub("", text[:cut])


def _cut(text: str) -> tuple[tuple[str, ...], str]:
    *whole, rest = _LINE_END.split(text)
    lines = [part for line in whole for part in _split_bars(line)]
    *bars, rest = _split_bars(rest)
    cut = (line[:MAX_LINE].rstrip() for line in (*lines, *bars))
    return tuple(line for line in cut if line), rest[:MAX_LINE]


def _split_bars(line: str) -> list[str]:
    """Return the bars of a line that has no line end, each with the text before it, and what follows the last."""
    parts, start = [], 0
    for end in _BAR_END.finditer(line):
        parts.append(line[start : end.end()])
        start = end.end()
    return [*parts, line[start:]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar: `done` of `total` of what `label` says."""

    label: str
    done: int
    total: int


def parse_bar(line: str) -> Bar | None:
    """Return the progress bar that a line ends in, or None."""
    found = _BAR.search(line[-MAX_BAR:]) if "%" in line else None
    if found is None:
        return None
    done, total = int(found["done"]), int(found["total"])
    return Bar(found["desc"].strip(), done, total) if 0 <= done <= total and total > 0 else None
