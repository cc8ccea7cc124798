"""The `model` member of a request: found and replaced in the bytes as they came.

Nothing is decoded and encoded again: a number that is too big for a float, a member that is there twice, an escape or
the order of members reach the backend as the client wrote them. What is not about `model` is the backend's to judge.
Linear in the size of the body, whatever is in it, and without recursion.
"""

import json
import re
from dataclasses import dataclass

_STRUCTURE = re.compile(rb'["\[\]{}]')
_BLANKS = re.compile(rb"[ \t\r\n]*")
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_NULL = re.compile(rb"null(?=[ \t\r\n,}])")

_LONGEST_KEY = len('"model"') + 5 * len("u006d")
"""Bytes of `"model"` with every letter escaped."""


class Malformed(ValueError):
    """The body is not one that names a model; the text says what to send."""

    def __init__(self) -> None:
        super().__init__("Send a JSON object, with the model's id or alias as text in `model`, or without `model`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request's body.

    Attributes:
        raw: as it came.
        model: what it names; None or an empty text names none.
        start, end: which bytes the name takes; equal where a member has to be put in.
        before, after: what has to stand around a name that is put in.
    """

    raw: bytes
    model: str | None
    start: int
    end: int
    before: bytes = b""
    after: bytes = b""

    def naming(self, name: str) -> bytes:
        """The body with that name, and nothing else changed."""
        if name == self.model:
            return self.raw
        raw = memoryview(self.raw)
        member = self.before + json.dumps(name).encode() + self.after
        return b"".join((raw[: self.start], member, raw[self.end :]))


def parse(raw: bytes) -> Body:
    """Find the model.

    Raises:
        Malformed: it is not an object, breaks off, or `model` is there twice or neither text nor null.
    """
    opening = _past_blanks(raw, 0)
    if not raw.startswith(b"{", opening):
        raise Malformed
    values: list[int] = []
    depth, place = 1, opening + 1
    while depth:
        token = _STRUCTURE.search(raw, place)
        if token is None:
            raise Malformed
        place = token.end()
        match token.group():
            case b'"':
                place = _string_end(raw, place)
                if depth == 1 and (colon := _COLON.match(raw, place)) and _is_model(raw[token.start() : place]):
                    values.append(colon.end())
                    place = colon.end()
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
    if len(values) > 1:
        raise Malformed
    return _named(raw, values[0]) if values else _nameless(raw, opening + 1)


def _named(raw: bytes, start: int) -> Body:
    if null := _NULL.match(raw, start):
        return Body(raw=raw, model=None, start=start, end=null.end())
    if not raw.startswith(b'"', start):
        raise Malformed
    end = _string_end(raw, start + 1)
    try:
        name = json.loads(raw[start:end])
    except ValueError:
        raise Malformed from None
    return Body(raw=raw, model=name, start=start, end=end)


def _nameless(raw: bytes, inside: int) -> Body:
    empty = raw.startswith(b"}", _past_blanks(raw, inside))
    return Body(raw=raw, model=None, start=inside, end=inside, before=b'"model": ', after=b"" if empty else b", ")


def _string_end(raw: bytes, place: int) -> int:
    """The place behind the quote that ends a string; `place` is inside of it."""
    while (quote := raw.find(b'"', place)) >= 0:
        escapes = quote
        while escapes > place and raw[escapes - 1] == ord("\\"):
            escapes -= 1
        place = quote + 1
        if (quote - escapes) % 2 == 0:
            return place
    raise Malformed


def _is_model(key: bytes) -> bool:
    if len(key) > _LONGEST_KEY or b"\\" not in key:
        return key == b'"model"'
    try:
        return bool(json.loads(key) == "model")
    except ValueError:
        return False


def _past_blanks(raw: bytes, place: int) -> int:
    blanks = _BLANKS.match(raw, place)
    return blanks.end() if blanks else place
