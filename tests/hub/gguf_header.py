"""The metadata of a GGUF file and its number of parameters, as far as the Hub shows them (GGUF specification, v3)."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def read_header(path: Path) -> tuple[dict[str, Any], int] | None:
    """Key-value pairs and the sum of all tensors' elements; None if the file is no whole GGUF header."""
    with path.open("rb") as file:
        try:
            return _read(file)
        except (struct.error, KeyError, UnicodeDecodeError):
            return None


def _read(file: BinaryIO) -> tuple[dict[str, Any], int] | None:
    if file.read(4) != b"GGUF":
        return None
    _version, tensors, pairs = _unpack(file, "<IQQ")
    values = {}
    for _ in range(pairs):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        values[key] = _value(file, kind)
    total = 0
    for _ in range(tensors):
        _string(file)
        (dimensions,) = _unpack(file, "<I")
        count = 1
        for extent in _unpack(file, f"<{dimensions}Q"):
            count *= extent
        _unpack(file, "<IQ")
        total += count
    return values, total


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(file: BinaryIO) -> str:
    (count,) = _unpack(file, "<Q")
    return file.read(count).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        inner, count = _unpack(file, "<IQ")
        return [_value(file, inner) for _ in range(count)]
    return _unpack(file, _SCALARS[kind])[0]
