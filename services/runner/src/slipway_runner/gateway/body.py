"""The `model` member of a request: found and replaced in the bytes as they came.

Nothing is decoded and encoded again: a number that is too big for a float, a member that is there twice, an escape or
the order of members reach the backend as the client wrote them. What is not about `model` is the backend's to judge.
Linear in the size of the body, whatever is in it, and without recursion.
"""

import json
import re
from dataclasses import dataclass

# Written without alternatives and without going back, so that they are linear, and stay in C for long.
_BLANK = rb"[ \t\r\n]*+"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = rb'[^"\[\]{}]*+'
_FLAT = _PLAIN + rb"(?:" + _STRING + _PLAIN + rb")*+"

_BLANKS = re.compile(_BLANK)
_TEXT = re.compile(_STRING, re.DOTALL)
_NULL = re.compile(rb"null(?=[ \t\r\n,}])")

_MEMBER = re.compile(
    _PLAIN + rb"(?:(" + _STRING + rb")(" + _BLANK + rb":" + _BLANK + rb")?|(?P<opening>[\[{])|(?P<closing>[\]}]))",
    re.DOTALL,
)
"""The next of these in the outermost object: a text (with a colon: a key), or a bracket."""

_NESTED = re.compile(_FLAT + rb"(?:[\[{]" + _FLAT + rb"[\]}]" + _FLAT + rb")*+(?:(?P<opening>[\[{])|[\]}])", re.DOTALL)
"""Inside of a value, all up to the next bracket, but for pairs of them that have none between them."""

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
    place = opening + 1
    while True:
        member = _MEMBER.match(raw, place)
        if member is None:
            raise Malformed
        place = member.end()
        key, colon = member.group(1, 2)
        if colon is not None and _is_model(key):
            values.append(place)
        elif member["opening"] is not None:
            place = _past_value(raw, place)
        elif member["closing"] is not None:
            break
    if len(values) > 1:
        raise Malformed
    return _named(raw, values[0]) if values else _nameless(raw, opening + 1)


def _named(raw: bytes, start: int) -> Body:
    if null := _NULL.match(raw, start):
        return Body(raw=raw, model=None, start=start, end=null.end())
    text = _TEXT.match(raw, start)
    if text is None:
        raise Malformed
    try:
        return Body(raw=raw, model=json.loads(text[0]), start=start, end=text.end())
    except ValueError:
        raise Malformed from None


def _nameless(raw: bytes, inside: int) -> Body:
    empty = raw.startswith(b"}", _past_blanks(raw, inside))
    return Body(raw=raw, model=None, start=inside, end=inside, before=b'"model": ', after=b"" if empty else b", ")


def _past_value(raw: bytes, place: int) -> int:
    """The place behind an array or object; `place` is inside of it."""
    depth = 1
    while depth:
        nested = _NESTED.match(raw, place)
        if nested is None:
            raise Malformed
        place = nested.end()
        depth += 1 if nested["opening"] is not None else -1
    return place


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
