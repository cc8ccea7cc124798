"""Faults that a test injects: what they do to a reply, as pure changes of it.

Each is a value with a name for JSON. `whole` sees the complete resource before a Range header is applied,
`sent` the reply that goes out.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from tests.hub.bodies import Cut, Stall, corrupt, length, split
from tests.hub.messages import Reply, xml_error


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with one reply; the base changes nothing."""

    name: ClassVar[str] = ""

    @property
    def covers(self) -> int | None:
        """The offset in the whole resource that a reply must carry for this to apply to it; None for any."""
        return None

    def whole(self, reply: Reply) -> Reply:
        """Change the complete resource."""
        return reply

    def sent(self, reply: Reply) -> Reply:
        """Change what goes out."""
        return reply


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answer with this status instead (with Retry-After, RateLimit … in ``headers``)."""

    name = "status"
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error":"injected"}'

    def whole(self, reply: Reply) -> Reply:
        return Reply(
            status=self.status,
            headers={"Content-Type": "application/json", **self.headers},
            body=(self.body.encode(),),
        )


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Wait before the status line; None is for ever."""

    name = "delay"
    seconds: float | None

    def sent(self, reply: Reply) -> Reply:
        return replace(reply, before=(*reply.before, Stall(self.seconds)))


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """RST after this many body bytes; None is before the status line."""

    name = "reset"
    after: int | None = None

    def sent(self, reply: Reply) -> Reply:
        if self.after is None:
            return replace(reply, before=(*reply.before, Cut(reset=True)))
        return _interrupted(reply, self.after, Cut(reset=True))


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """Close in good order after this many body bytes, with the rest of Content-Length owed."""

    name = "truncate"
    after: int

    def sent(self, reply: Reply) -> Reply:
        return _interrupted(reply, self.after, Cut(reset=False))


@dataclass(frozen=True, slots=True)
class StallAfter(Fault):
    """Send nothing for a while after this many body bytes; None is for ever."""

    name = "stall"
    after: int = 0
    seconds: float | None = None

    def sent(self, reply: Reply) -> Reply:
        return _interrupted(reply, self.after, Stall(self.seconds))


@dataclass(frozen=True, slots=True)
class HoldAfter(Fault):
    """Send nothing after this many body bytes until `release`; for tests in the emulator's process."""

    name = "hold"
    after: int = 0
    _released: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def release(self) -> None:
        """Go on with every reply that is held, and hold none from now on."""
        self._released.set()

    def sent(self, reply: Reply) -> Reply:
        if length(reply.body) <= self.after:
            return reply
        return _interrupted(reply, self.after, Stall(None, self._released))


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """Send this body at ``rate`` bytes a second."""

    name = "slow"
    rate: float

    def sent(self, reply: Reply) -> Reply:
        return replace(reply, rate=self.rate)


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """Flip the byte at this offset of the whole resource, in replies that carry it."""

    name = "corrupt"
    offset: int

    @property
    def covers(self) -> int | None:
        return self.offset

    def whole(self, reply: Reply) -> Reply:
        return replace(reply, body=corrupt(reply.body, self.offset))


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """Answer 200 with everything, whatever range was asked for."""

    name = "ignore_range"

    def whole(self, reply: Reply) -> Reply:
        return replace(reply, ranged=False)


@dataclass(frozen=True, slots=True)
class ContentLength(Fault):
    """Claim ``delta`` more (or fewer) bytes than are sent, and close after them.

    With ``cut`` a smaller claim is honoured: exactly that much is sent, in good order.
    """

    name = "content_length"
    delta: int
    cut: bool = False

    def sent(self, reply: Reply) -> Reply:
        if self.cut and self.delta < 0:
            return replace(reply, body=split(reply.body, length(reply.body) + self.delta)[0])
        return replace(reply, length_delta=self.delta, body=(*reply.body, Cut(reset=False)))


@dataclass(frozen=True, slots=True)
class ContentRange(Fault):
    """Say that the bytes of a 206 begin ``shift`` bytes away from where they do."""

    name = "content_range"
    shift: int

    def sent(self, reply: Reply) -> Reply:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers.get("Content-Range", ""))
        if match is None:
            return reply
        start, last = int(match[1]) + self.shift, int(match[2]) + self.shift
        return reply.with_headers({"Content-Range": f"bytes {start}-{last}/{match[3]}"})


@dataclass(frozen=True, slots=True)
class Headers(Fault):
    """Set headers of the reply: a hostile X-Linked-Etag, a Location elsewhere, a missing size ..."""

    name = "headers"
    headers: Mapping[str, str]

    def sent(self, reply: Reply) -> Reply:
        return reply.with_headers(self.headers)


@dataclass(frozen=True, slots=True)
class ExpireLinks(Fault):
    """On a redirect of the Hub: hand out a link that is over. On a data link: refuse it as over."""

    name = "expire_links"

    def whole(self, reply: Reply) -> Reply:
        location = reply.headers.get("Location")
        if location is not None:
            return reply.with_headers({"Location": re.sub(r"\bExpires=\d+", "Expires=1", location)})
        return xml_error(403, "AccessDenied", "Request has expired")


def _interrupted(reply: Reply, after: int, mishap: Stall | Cut) -> Reply:
    left, right = split(reply.body, after)
    return replace(reply, body=(*left, mishap, *right))


FAULTS: Mapping[str, type[Fault]] = {
    kind.name: kind
    for kind in (
        Status,
        Delay,
        Reset,
        Truncate,
        StallAfter,
        Slow,
        Corrupt,
        IgnoreRange,
        ContentLength,
        ContentRange,
        Headers,
        ExpireLinks,
    )
}


def to_json(fault: Fault) -> dict[str, Any]:
    """The fault as `POST /__faults` takes it."""
    return {"action": fault.name} | {item.name: getattr(fault, item.name) for item in fields(fault) if item.init}
