"""safetensors headers and indexes."""

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_service.weights.reading import HeaderError
from slipway_service.weights.safetensors import MAX_HEADER_BYTES, SafetensorsHeader, parse_index, parse_safetensors


def made(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parse(content: bytes) -> SafetensorsHeader:
    def read(offset: int, length: int) -> bytes:
        assert 0 < length <= MAX_HEADER_BYTES + 8
        return content[offset : offset + length]

    return parse_safetensors(read)


def tensor(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


MODEL = {
    "__metadata__": {"format": "pt"},
    "a": tensor("BF16", [2, 3], 0, 12),
    "b": tensor("F32", [], 12, 16),
    "c": tensor("BF16", [0, 5], 16, 16),
    "d": tensor("F4", [4], 16, 18),
}


def test_a_header() -> None:
    content = made(MODEL, b"\0" * 18)
    header = parse(content)
    assert header.elements == {"BF16": 6, "F32": 1, "F4": 4}
    assert header.parameters == 11
    assert header.tensors == 4
    assert header.metadata == {"format": "pt"}
    assert header.file_bytes == len(content)


def test_types_of_the_future_are_counted() -> None:
    assert parse(made({"a": tensor("F3_X", [8], 0, 3)})).elements == {"F3_X": 8}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends within"),
        (b"\x10\0\0\0\0\0\0\0{", "ends within"),
        (struct.pack("<Q", 2**63), "not a safetensors"),
        (struct.pack("<Q", 4) + b"nope", "not JSON"),
        (made([]), "no JSON object"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "not JSON"),
        (made({"__metadata__": 3}), "notes"),
        (made({"a": 3}), "type, shape and place"),
        (made({"a": tensor("F32", [2], 0, 4)}), "not as large"),
        (made({"a": tensor("F32", [-2], 0, 4)}), "type, shape and place"),
        (made({"a": tensor("F32", [2**62, 2**62], 0, 4)}), "not as large"),
        (made({"a": {**tensor("F32", [1], 0, 4), "data_offsets": [0]}}), "type, shape and place"),
        (made({"a": {**tensor("F32", [1], 0, 4), "shape": [True]}}), "type, shape and place"),
    ],
)
def test_hostile_headers(content: bytes, why: str) -> None:
    with pytest.raises(HeaderError, match=why):
        parse(content)


@given(st.integers(0, 300), st.binary(max_size=8))
def test_mutations_end_with_a_header_or_an_error(at: int, change: bytes) -> None:
    content = bytearray(made(MODEL, b"\0" * 18))
    content[at : at + len(change)] = change
    with contextlib.suppress(HeaderError):
        parse(bytes(content))


def test_an_index() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    content = {"metadata": {"total_size": 100}, "weight_map": {"b": shards[1], "a": shards[0], "c": shards[0]}}
    index = parse_index(json.dumps(content).encode())
    assert list(index.shards) == shards
    assert (index.tensors, index.total_bytes) == (3, 100)
    assert index.missing([shards[0]]) == (shards[1],)


@pytest.mark.parametrize(
    "content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../x"}}, []]
)
def test_no_index(content: object) -> None:
    with pytest.raises(HeaderError):
        parse_index(json.dumps(content).encode())
