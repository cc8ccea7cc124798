"""The bytes of a watch batch, put together from entries that are serialised already.

Every `Watch…Response` of the contract has the same shape:

    message Batch { repeated Event events = 1; slipway.common.v1.Cursor cursor = 2; bool reset = 3; bool synced = 4; }

so a batch is the concatenation of its events' fields and a few bytes of its own. `check_batch` holds a response type
against that when a service starts.
"""

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from slipway.common.v1 import watch_pb2

from slipway_service.eventlog import Cursor
from slipway_service.watcher import Batch

# Field number << 3 | wire type, from https://protobuf.dev/programming-guides/encoding/
_EVENTS = b"\x0a"
_CURSOR = b"\x12"
_RESET_TRUE = b"\x18\x01"
_SYNCED_TRUE = b"\x20\x01"

_FIELDS = {"events": 1, "cursor": 2, "reset": 3, "synced": 4}


def event_field(event: Message) -> bytes:
    """An event message as the `events` field of a batch: what an `Entry` holds."""
    return _delimited(_EVENTS, event.SerializeToString())


def batch(content: Batch) -> bytes:
    """A whole batch, ready to be written."""
    parts = [*content.events]
    if content.cursor is not None:
        parts.append(_delimited(_CURSOR, cursor_message(content.cursor).SerializeToString()))
    if content.reset:
        parts.append(_RESET_TRUE)
    if content.synced:
        parts.append(_SYNCED_TRUE)
    return b"".join(parts)


def cursor_message(cursor: Cursor) -> watch_pb2.Cursor:
    """The cursor as responses carry it."""
    return watch_pb2.Cursor(epoch=cursor.epoch, revision=cursor.revision)


def check_batch(response: Descriptor) -> None:
    """Hold a batch message against the shape that this module writes.

    Raises:
        TypeError: a field is missing or has another number.
    """
    numbers = {name: found.number for name in _FIELDS if (found := response.fields_by_name.get(name)) is not None}
    if numbers != _FIELDS:
        raise TypeError(f"{response.full_name} is no watch batch: its fields are {numbers}, not {_FIELDS}")


def _delimited(tag: bytes, payload: bytes) -> bytes:
    return tag + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
