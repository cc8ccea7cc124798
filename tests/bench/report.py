"""Tables of Markdown, printed row by row and kept in build/bench/."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"


class Report:
    """What one benchmark prints, and writes to build/bench/NAME.md when it is done."""

    def __init__(self, name: str) -> None:
        self._path = BUILD / f"{name}.md"
        self._lines: list[str] = []

    def say(self, line: str = "") -> None:
        """A line of text."""
        print(line, flush=True)
        self._lines.append(line)

    def head(self, *columns: str) -> None:
        """Begin a table."""
        self.row(*columns)
        self.say("|" + "---|" * len(columns))

    def row(self, *cells: str) -> None:
        """A row of it."""
        self.say("| " + " | ".join(cells) + " |")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("\n".join(self._lines) + "\n")


def share(values: Sequence[float], part: float) -> float:
    """The value that so large a part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
