"""What a command writes: lines for people, or JSON Lines for programs, and errors.

With `--json` standard output has one line of proto JSON for each result or event and nothing else, and an error is one
line on standard error. Names are camelCase and 64-bit integers are strings, as proto3's JSON mapping has it. Fields at
their default are written too, so that every line of a kind has the same keys; what is left out is what is unset:
messages, and scalars whose absence means something.
"""

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slipway_client.cli import format as fmt
from slipway_client.errors import ServiceFailure, SlipwayError

PIPE_WIDTH = 1000
"""Columns of a table that is not on a terminal: enough never to cut a value."""


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

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line for people, of texts and of texts with a style."""
        self.console.print(Text.assemble(*parts))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[str] = ()) -> None:
        """A table without lines; the columns of `right` have numbers, and the last one is wrapped first."""
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", no_wrap=True, overflow="ellipsis")
        table.columns[-1].no_wrap = False
        for row in rows:
            table.add_row(*row)
        if self.console.is_terminal:
            self.console.print(table)
            return
        text = io.StringIO()
        Console(file=text, width=PIPE_WIDTH).print(table)
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


def _console(*, stderr: bool) -> Console:
    """Text as it is: no markup in it, and lines broken at words only where a person reads them."""
    console = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
    console.soft_wrap = not console.is_terminal
    return console


def as_dict(message: Message) -> dict[str, Any]:
    """A message in proto3's JSON mapping, with fields at their default."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


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
        "help": [{"description": one.description, "url": one.url} for one in error.help],
        "resource": error.resource,
        "requestId": error.request_id,
        "address": error.address,
    }
    return {key: value for key, value in found.items() if value not in ("", None, [], {})}


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
