"""What a command writes: lines for people, or JSON Lines for programs, and errors.

With `--json` standard output has one line of proto JSON for each result or event and nothing else, and an error is one
line on standard error. Names are camelCase and 64-bit integers are strings, as proto3's JSON mapping has it. Fields at
their default are written too, so that every line of a kind has the same keys; what is left out is what is unset:
messages, and scalars whose absence means something.
"""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from slipway_client.cli import format as fmt
from slipway_client.errors import ServiceFailure, SlipwayError

PIPE_WIDTH = 1000
"""Columns of a table that is not on a terminal: enough never to cut a value."""


TABLE_GAP = 2
"""Columns between those of a table."""


_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""What moves a cursor, rings, or changes a title; lines may end."""

_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""The control characters that JSON lets stand as they are."""


def plain(text: str) -> str:
    """The text with characters in place of control characters."""
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_CONTROL)


class SafeConsole(Console):
    """Shows what a service sent, or a model wrote, without obeying it: control characters in texts have no effect."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich's, which adds styles and moves the cursor by segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console(stderr=False)
        self.errors = _console(stderr=True)

    def json(self, message: Message | dict[str, Any]) -> None:
        """One line of JSON."""
        content = as_dict(message) if isinstance(message, Message) else message
        self.console.file.write(_line(content))
        self.console.file.flush()

    def line(self, *parts: str | Text | tuple[str, str]) -> None:
        """One line for people, of texts and of texts with a style."""
        self.console.print(Text.assemble(*parts))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str | Text]],
        *,
        right: Collection[str] = (),
        spare: Iterable[str] = (),
    ) -> None:
        """A table without lines.

        Args:
            columns: their heads.
            rows: as many cells each. Where the terminal is too narrow the last column is wrapped, then others are cut.
            right: columns with numbers, which are never cut.
            spare: columns that are left out, in this order, before any of that.
        """
        cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        shown = _fitting(columns, cells, spare, self.console.width if self.console.is_terminal else PIPE_WIDTH)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, TABLE_GAP, 0, 0))
        for at in shown:
            is_number = columns[at] in right
            table.add_column(
                columns[at],
                justify="right" if is_number else "left",
                min_width=_width(columns, cells, at) if is_number else None,
                no_wrap=True,
                overflow="ellipsis",
            )
        table.columns[-1].no_wrap = False
        for row in cells:
            table.add_row(*(row[at] for at in shown))
        if self.console.is_terminal:
            self.console.print(table)
            return
        text = io.StringIO()
        SafeConsole(file=text, width=PIPE_WIDTH).print(table)
        for line in text.getvalue().splitlines():
            self.console.file.write(line.rstrip() + "\n")

    def error(self, error: SlipwayError, code: int) -> None:
        """An error: the reason, what to do, and what helps with that."""
        if self.as_json:
            self.errors.file.write(_line({"error": error_dict(error, code)}))
            return
        self.failure(error.reason, error.text)
        for violation in error.fields:
            self.errors.print(f"  {violation.field}: {violation.description}")
        for precondition in error.preconditions:
            self.errors.print(f"  {precondition.subject}: {precondition.description}")
        for link in error.help:
            self.errors.print(f"  {link.url}")
        for hint in hints(error):
            self.errors.print(f"  {hint}")
        if error.retry_after:
            self.errors.print(f"  try again in {fmt.seconds(error.retry_after)}")
        if isinstance(error, ServiceFailure) and error.request_id:
            self.errors.print(f"  its log has more under request id {error.request_id}")

    def failure(self, reason: str, text: str, **more: object) -> None:
        """An error that did not come from a service; `more` goes into its JSON."""
        if self.as_json:
            self.errors.file.write(_line({"error": {"reason": reason, "message": text, **more}}))
        else:
            self.errors.print(Text.assemble((reason, "bold red"), ": ", text))


def _width(columns: Sequence[str], rows: Sequence[Sequence[Text]], at: int) -> int:
    """What a column of a table takes when nothing of it is cut."""
    return max(len(columns[at]), *(row[at].cell_len for row in rows), 0)


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[Text]], spare: Iterable[str], width: int) -> Sequence[int]:
    """Which columns to show, by their places: without as many of the spare ones as it takes to fit."""
    shown = list(range(len(columns)))
    widths = [_width(columns, rows, at) + TABLE_GAP for at in shown]
    for name in spare:
        if sum(widths[at] for at in shown) - TABLE_GAP <= width:
            break
        shown = [at for at in shown if columns[at] != name]
    return shown


def _console(*, stderr: bool) -> SafeConsole:
    """Text as it is: no markup in it, and lines broken at words only where a person reads them."""
    console = SafeConsole(markup=False, highlight=False, emoji=False, stderr=stderr)
    console.soft_wrap = not console.is_terminal
    return console


def as_dict(message: Message) -> dict[str, Any]:
    """A message in proto3's JSON mapping, with fields at their default."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def hints(error: SlipwayError) -> list[str]:
    """What a command has added to an error: what to type next."""
    return list(getattr(error, "__notes__", ()))


def error_dict(error: SlipwayError, code: int) -> dict[str, Any]:
    """An error as JSON has it."""
    found: dict[str, Any] = {
        "reason": error.reason,
        "message": error.text,
        "code": error.code.name,
        "exitCode": code,
        "facts": dict(error.facts),
        "retryAfter": error.retry_after,
        "fields": [{"field": one.field, "description": one.description} for one in error.fields],
        "preconditions": [
            {"type": one.type, "subject": one.subject, "description": one.description} for one in error.preconditions
        ],
        "hints": hints(error),
        "help": [{"description": one.description, "url": one.url} for one in error.help],
        "resource": error.resource,
        "requestId": error.request_id,
        "address": error.address,
    }
    return {key: value for key, value in found.items() if value not in ("", None, [], {})}


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED) + "\n"
