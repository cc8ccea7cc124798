"""The header of a GGUF file: metadata and the list of tensors, without the tensors.

Format: ggml's `docs/gguf.md`, versions 2 and 3, little endian. Everything that a file may claim is bounded; whatever it
holds, parsing ends with a header or a `HeaderError`, and reads no more than the header needs.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from slipway_service.weights.ggml_types import BLOCKS, FILE_TYPES, GUESSED_FILE_TYPE, POOLING
from slipway_service.weights.reading import HeaderError, Read, Window

MAX_HEADER_BYTES = 128 << 20
"""Largest header: vocabularies of 260,000 tokens with merges take some 15 MiB."""

MAX_PAIRS = 65_536
"""Most metadata pairs; real files have some 50."""

MAX_TENSORS = 262_144
"""Most tensors; the largest mixtures of experts, one tensor an expert, have some 50,000."""

MAX_ELEMENTS = 8_000_000
"""Most elements of arrays that have to be walked (strings, arrays) in all, which bounds the time that parsing takes."""

MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_NESTING = 4
KEPT_STRING_BYTES = 4096
KEPT_ARRAY_ELEMENTS = 4096
"""Longer values are skipped; none that decides anything here is."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_START = struct.Struct("<4sIQQ")
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        version: of the format.
        values: metadata by key; values that are long (vocabularies, templates) are left out.
        array_lengths: how many elements each array has, kept or not.
        keys: all keys.
        tensors: how many tensors there are in this file.
        parameters: elements of all tensors in this file.
        tensor_bytes: exact bytes of all tensors in this file; None where a type is not known.
        file_bytes: how large the file must be to hold them; None likewise. A smaller file is cut off.
        data_offset: where tensors begin.
    """

    version: int
    values: Mapping[str, Value]
    array_lengths: Mapping[str, int]
    keys: frozenset[str]
    tensors: int
    parameters: int
    tensor_bytes: int | None
    file_bytes: int | None
    data_offset: int

    def text(self, key: str) -> str:
        """A string's value; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def count(self, key: str) -> int | None:
        """A count's value; None where there is none."""
        value = self.values.get(key)
        return value if type(value) is int and value >= 0 else None

    @property
    def architecture(self) -> str:
        """`llama`, `qwen3moe`, `bert`, … (`clip` for a projector)."""
        return self.text("general.architecture")

    def of_architecture(self, key: str) -> Value | None:
        """The value of `{architecture}.{key}`."""
        return self.values.get(f"{self.architecture}.{key}")

    @property
    def quantization(self) -> str:
        """What the file is called by, `Q4_K_M`; empty where it does not say."""
        number = self.count("general.file_type")
        return FILE_TYPES.get((number or 0) % GUESSED_FILE_TYPE, "") if number is not None else ""

    @property
    def chat_template(self) -> bool:
        """Whether a chat template comes with it."""
        return any(key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.") for key in self.keys)

    @property
    def pooling(self) -> str:
        """`MEAN`, `CLS`, `LAST`, `RANK` …; empty where it does not say."""
        number = self.of_architecture("pooling_type")
        return POOLING.get(number, "") if type(number) is int else ""

    @property
    def split(self) -> tuple[int, int]:
        """Which part of how many the file is; (0, 1) for a whole one. Only the first part has all metadata."""
        return self.count("split.no") or 0, self.count("split.count") or 1


_TEMPLATE = "tokenizer.chat_template"


def parse_gguf(read: Read, limit: int = MAX_HEADER_BYTES) -> GgufHeader:
    """Read a GGUF file's header.

    Raises:
        HeaderError: it is none, it is cut off, or it claims what no model has.
    """
    return _Parser(Window(read, limit)).parse()


class _Parser:
    def __init__(self, window: Window) -> None:
        self._window = window
        self._walked = 0
        self._values: dict[str, Value] = {}
        self._lengths: dict[str, int] = {}
        self._keys: set[str] = set()

    def parse(self) -> GgufHeader:
        magic, version, tensors, pairs = self._window.unpack(_START)
        if magic != _MAGIC:
            raise HeaderError("not a GGUF file")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            raise HeaderError("a big-endian GGUF file" if swapped else f"GGUF version {version}, not 2 or 3")
        if pairs > MAX_PAIRS or tensors > MAX_TENSORS:
            raise HeaderError(f"{pairs} metadata pairs and {tensors} tensors, more than any model has")
        for _ in range(pairs):
            self._pair()
        return self._with_tensors(version, tensors)

    def _pair(self) -> None:
        key = self._string(MAX_KEY_BYTES)
        if key is None or key in self._keys:
            raise HeaderError("a metadata key that is there twice or is no text")
        self._keys.add(key)
        (kind,) = self._window.unpack(_U32)
        value = self._array(key) if kind == _ARRAY else self._scalar(kind)
        if value is not None:
            self._values[key] = value

    def _scalar(self, kind: int) -> Scalar | None:
        if kind == _STRING:
            return self._string_or_skip()
        if kind not in _SCALARS:
            raise HeaderError(f"a value of unknown type {kind}")
        value: Scalar = self._window.unpack(_SCALARS[kind])[0]
        return value

    def _array(self, key: str) -> tuple[Scalar, ...] | None:
        kind, count = self._array_start()
        self._lengths[key] = count
        if count > KEPT_ARRAY_ELEMENTS or kind == _ARRAY:
            self._skip_elements(kind, count, 1)
            return None
        values = [self._scalar(kind) for _ in range(count)]
        self._walk(count)
        return tuple(value for value in values if value is not None)

    def _array_start(self) -> tuple[int, int]:
        (kind,) = self._window.unpack(_U32)
        (count,) = self._window.unpack(_U64)
        return kind, count

    def _skip_elements(self, kind: int, count: int, depth: int) -> None:
        if kind in _SCALARS:
            self._window.skip(count * _SCALARS[kind].size)
            return
        if kind not in (_STRING, _ARRAY) or depth > MAX_NESTING:
            raise HeaderError(f"an array of unknown type {kind}, or nested too deeply")
        self._walk(count)
        for _ in range(count):
            if kind == _STRING:
                self._window.skip(self._window.unpack(_U64)[0])
            else:
                self._skip_elements(*self._array_start(), depth + 1)

    def _walk(self, count: int) -> None:
        self._walked += count
        if self._walked > MAX_ELEMENTS:
            raise HeaderError(f"more than {MAX_ELEMENTS:,} elements of metadata")

    def _string(self, at_most: int) -> str | None:
        """A string; None where it is not UTF-8."""
        (length,) = self._window.unpack(_U64)
        if length > at_most:
            raise HeaderError(f"a name of {length:,} bytes")
        try:
            return self._window.take(length).decode()
        except UnicodeDecodeError:
            return None

    def _string_or_skip(self) -> str | None:
        (length,) = self._window.unpack(_U64)
        if length > KEPT_STRING_BYTES:
            self._window.skip(length)
            return None
        return self._window.take(length).decode(errors="replace")

    def _with_tensors(self, version: int, count: int) -> GgufHeader:
        parameters, sizes, end = 0, 0, 0
        known = True
        for _ in range(count):
            elements, size, offset = self._tensor()
            parameters += elements
            known = known and size is not None
            sizes += size or 0
            end = max(end, offset + (size or 0))
        alignment = self._alignment()
        data_offset = -(-self._window.position // alignment) * alignment
        return GgufHeader(
            version=version,
            values=self._values,
            array_lengths=self._lengths,
            keys=frozenset(self._keys),
            tensors=count,
            parameters=parameters,
            tensor_bytes=sizes if known else None,
            file_bytes=(data_offset + end if count else self._window.position) if known else None,
            data_offset=data_offset,
        )

    def _tensor(self) -> tuple[int, int | None, int]:
        """A tensor's elements, bytes and offset."""
        self._string(MAX_TENSOR_NAME_BYTES)
        (dimensions,) = self._window.unpack(_U32)
        if dimensions > MAX_DIMENSIONS:
            raise HeaderError(f"a tensor of {dimensions} dimensions")
        elements, row = 1, 1
        for index in range(dimensions):
            (extent,) = self._window.unpack(_U64)
            row = extent if index == 0 else row
            elements *= extent
        (kind,) = self._window.unpack(_U32)
        (offset,) = self._window.unpack(_U64)
        if elements >= 1 << 63 or offset >= 1 << 63:
            raise HeaderError("a tensor larger than any file")
        return elements, _tensor_bytes(kind, elements, row), offset

    def _alignment(self) -> int:
        value = self._values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(value) is not int or value <= 0 or value & (value - 1) or value > 1 << 20:
            raise HeaderError("an alignment that is no power of two")
        return value


def _tensor_bytes(kind: int, elements: int, row: int) -> int | None:
    if kind not in BLOCKS:
        return None
    _, block, size = BLOCKS[kind]
    if row % block:
        raise HeaderError("a tensor whose rows are no whole blocks")
    return elements // block * size
