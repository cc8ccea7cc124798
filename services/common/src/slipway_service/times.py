"""Points in time and lengths of time, between our values and the well-known types.

Rounded to microseconds, which is all that a float of seconds since 1970 holds, so that both ways agree.
"""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOSECONDS = 1_000_000_000


def timestamp(at: datetime | float | None) -> Timestamp | None:
    """An aware datetime, or seconds since 1970; None stays unset."""
    if at is None:
        return None
    if not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    message = Timestamp()
    message.FromDatetime(at)
    return message


def duration(length: float | None) -> Duration | None:
    """Seconds; None stays unset."""
    if length is None:
        return None
    message = Duration()
    message.FromNanoseconds(round(length * _NANOSECONDS))
    return message


def seconds(length: Duration) -> float:
    """A Duration in seconds."""
    return length.ToNanoseconds() / _NANOSECONDS
