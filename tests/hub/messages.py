"""Requests and replies as values; routes map one to the other and know no sockets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from urllib.parse import parse_qs

from tests.hub.bodies import Body, Cut, Stall, length

OriginName = Literal["hub", "cdn", "cas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came in; ``target`` is raw, since a revision's ``/`` arrives as ``%2F``."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The raw path without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """Query parameters, unquoted, each with all its values."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Whether a boolean query parameter is on; clients write ``true``, ``True`` or ``1``."""
        return self.query.get(name, [""])[-1].lower() in {"true", "1"}

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header, if there is one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def form(self) -> Mapping[str, Any]:
        """The body of a POST, as JSON or as a form (whose values are lists)."""
        if "json" in self.headers.get("content-type", ""):
            value = json.loads(self.body or b"{}")
            return value if isinstance(value, dict) else {}
        return parse_qs(self.body.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is to be sent: the head, the body, and what goes wrong on the way.

    ``ranged`` says that a Range header applies to the body. ``start`` is the offset of the body's first byte
    in the whole. ``before`` happens ahead of the status line. ``rate`` limits this body, in bytes a second.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = ()
    ranged: bool = False
    before: tuple[Stall | Cut, ...] = ()
    rate: float | None = None
    length_delta: int = 0

    def with_headers(self, extra: Mapping[str, str]) -> Self:
        """The reply with some headers set, whatever the case of their names."""
        changed = {name.lower() for name in extra}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in changed}
        return replace(self, headers={**kept, **extra})

    def head(self) -> bytes:
        """Status line and headers, with the Content-Length that the reply claims."""
        headers = {**self.headers}
        if self.status != 304:
            headers["Content-Length"] = str(length(self.body) + self.length_delta)
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    302: "Found",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    411: "Length Required",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Reply(
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
        body=(body,),
    )


def xml_error(status: int, code: str, message: str) -> Reply:
    """An error as object stores and their CDNs write it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status=status, headers={"Content-Type": "application/xml"}, body=(text.encode(),))


def parse_range(header: str | None, total: int) -> tuple[int, int] | None:
    """The half-open span that a Range header asks of ``total`` bytes, or None where there is none to honour.

    Several ranges and what does not parse are ignored, as RFC 9110 section 14.2 allows.

    Raises:
        RangeError: nothing of the range is inside.
    """
    if not header or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header.removeprefix("bytes=").strip().partition("-")
    if not dash or not all(part == "" or part.isdigit() for part in (first, last)) or not (first or last):
        return None
    start = int(first) if first else max(0, total - int(last))
    stop = min(int(last) + 1, total) if first and last else total
    if start >= total or start >= stop:
        raise RangeError(total)
    return start, stop


class RangeError(Exception):
    """A range outside the resource, answered with 416."""

    def __init__(self, total: int) -> None:
        self.total = total
        super().__init__(f"range outside of {total} bytes")


def join(values: Sequence[str] | None) -> list[str]:
    """All values of a repeated parameter, comma-separated ones taken apart."""
    return [item for value in values or () for item in value.split(",") if item]
