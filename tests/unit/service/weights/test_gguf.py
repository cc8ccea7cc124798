"""GGUF headers: the same as the reference reads, and nothing that a file holds gets further than a HeaderError."""

import contextlib
import struct
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway_service.weights.ggml_types import BLOCKS, FILE_TYPES, POOLING
from slipway_service.weights.gguf import MAX_HEADER_BYTES, GgufHeader, parse_gguf
from slipway_service.weights.memory import CacheShape
from slipway_service.weights.model_facts import facts_of_gguf
from slipway_service.weights.reading import FIRST_READ_BYTES, HeaderError

from tests.unit.service.weights.ggufs import write_gguf


class Source:
    """Bytes that count how much of them is read, and refuse what a file could not answer."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads: list[tuple[int, int]] = []

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert 0 < length <= MAX_HEADER_BYTES
        self.reads.append((offset, length))
        return self.content[offset : offset + length]


def parse(content: bytes) -> GgufHeader:
    return parse_gguf(Source(content))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def pairs(*items: tuple[str, int, bytes], tensors: int = 0, tail: bytes = b"") -> bytes:
    """A file by hand: metadata as (key, type, bytes of the value)."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, tensors, len(items))
    return head + b"".join(_text(key) + struct.pack("<I", kind) + value for key, kind, value in items) + tail


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _array(kind: int, count: int, content: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + content


def test_the_tables_are_those_of_the_reference() -> None:
    sizes = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert sizes == BLOCKS
    names = {kind.name.removeprefix("MOSTLY_").removeprefix("ALL_"): int(kind) for kind in gguf.LlamaFileType}
    assert {name: number for number, name in FILE_TYPES.items()} == {
        name: number for name, number in names.items() if name != "GUESSED"
    }
    assert {int(kind): kind.name for kind in gguf.PoolingType} == POOLING


@pytest.mark.parametrize("f16", [False, True])
def test_the_same_as_the_reference_reads(tmp_path: Path, f16: bool) -> None:
    path = write_gguf(tmp_path / "m.gguf", f16=f16, vocabulary=1000)
    reference = gguf.GGUFReader(path)
    header = parse(path.read_bytes())
    assert header.tensors == len(reference.tensors) == 3
    assert header.parameters == sum(int(tensor.n_elements) for tensor in reference.tensors)
    assert header.tensor_bytes == sum(int(tensor.n_bytes) for tensor in reference.tensors)
    assert header.data_offset == reference.data_offset
    assert header.file_bytes is not None
    assert header.file_bytes <= path.stat().st_size < header.file_bytes + 32  # the writer pads the last tensor
    fields = {name for name in reference.fields if not name.startswith("GGUF.")}
    assert header.keys == fields
    for name, value in header.values.items():
        theirs = reference.fields[name].contents()
        assert (list(value) if isinstance(value, tuple) else value) == pytest.approx(theirs)
    assert header.array_lengths == {"tokenizer.ggml.tokens": 1000, "tokenizer.ggml.scores": 1000}


def test_what_a_header_says(tiny: bytes) -> None:
    header = parse(tiny)
    assert (header.architecture, header.quantization, header.chat_template) == ("llama", "F32", True)
    assert (header.pooling, header.split, header.version) == ("", (0, 1), 3)
    facts = facts_of_gguf(header)
    assert facts.context_length == 2048
    assert facts.parameters == 300 * 64 + 64 + 3 * 64
    assert facts.cache == CacheShape(kv_heads=(2, 2), key_length=16, value_length=16)
    assert facts.chat_template is True


def test_heads_of_each_layer_and_explicit_lengths(tmp_path: Path) -> None:
    values = {"attention.key_length": 128, "attention.value_length": 64}
    header = parse(write_gguf(tmp_path / "a.gguf", values=values).read_bytes())
    assert facts_of_gguf(header).cache == CacheShape(kv_heads=(2, 2), key_length=128, value_length=64)


def test_layers_without_attention_have_no_cache() -> None:
    content = pairs(
        ("general.architecture", 8, _text("jamba")),
        ("jamba.block_count", 4, struct.pack("<I", 4)),
        ("jamba.embedding_length", 4, struct.pack("<I", 64)),
        ("jamba.attention.head_count", 4, struct.pack("<I", 4)),
        ("jamba.attention.head_count_kv", 9, _array(5, 4, struct.pack("<4i", 0, 2, 0, 2))),
    )
    cache = facts_of_gguf(parse(content)).cache
    assert cache == CacheShape(kv_heads=(0, 2, 0, 2), key_length=16, value_length=16)
    assert cache.bytes_per_token == 4 * 32 * 2


def test_latent_attention(tmp_path: Path) -> None:
    values = {"attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192}
    header = parse(write_gguf(tmp_path / "a.gguf", architecture="deepseek2", values=values).read_bytes())
    assert facts_of_gguf(header).cache == CacheShape(kv_heads=(2, 2), key_length=576, value_length=0)


def test_an_encoder_has_no_cache_and_a_pooling(tmp_path: Path) -> None:
    values = {"attention.causal": False, "pooling_type": 1}
    header = parse(write_gguf(tmp_path / "a.gguf", architecture="bert", values=values).read_bytes())
    facts = facts_of_gguf(header)
    assert facts.pooling == "MEAN"
    assert facts.cache is not None
    assert facts.cache.bytes_per_token == 0


def test_a_part_of_a_split_does_not_count_parameters() -> None:
    content = pairs(("split.no", 2, struct.pack("<H", 1)), ("split.count", 2, struct.pack("<H", 3)))
    header = parse(content)
    assert header.split == (1, 3)
    assert facts_of_gguf(header).parameters is None


def test_a_large_vocabulary_takes_few_reads_that_grow(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "big.gguf", vocabulary=150_000).read_bytes()
    source = Source(content)
    begin = time.process_time()
    header = parse_gguf(source)
    assert time.process_time() - begin < 30
    assert header.array_lengths["tokenizer.ggml.tokens"] == 150_000
    assert len(source.reads) <= 5
    ends = [offset + length for offset, length in source.reads]
    assert max(ends) < 3 * header.data_offset + FIRST_READ_BYTES  # tensors behind the header are not fetched


def test_a_small_header_takes_one_read(tiny: bytes) -> None:
    source = Source(tiny)
    parse_gguf(source)
    assert source.reads == [(0, FIRST_READ_BYTES)]


def test_types_of_the_future_leave_sizes_open() -> None:
    tensor = _text("t") + struct.pack("<IQIQ", 1, 256, 99, 0)
    header = parse(pairs(tensors=1, tail=tensor))
    assert (header.parameters, header.tensor_bytes, header.file_bytes) == (256, None, None)


MILLION = 1_000_000_000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends within"),
        (b"GGUF", "ends within"),
        (b"x" * 100, "not a GGUF"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**64 - 1), "more than any model"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**64 - 1, 0), "more than any model"),
        (pairs(("k", 8, struct.pack("<Q", 2**63))), "goes on behind"),
        (pairs(("k", 9, _array(8, 2**63, b""))), "elements of metadata"),
        (pairs(("k", 9, _array(8, MILLION, b""))), "elements of metadata"),
        (pairs(("k", 9, _array(0, 2**63, b""))), "goes on behind"),
        (pairs(("k", 9, _array(12, 2**64 - 1, b""))), "goes on behind"),
        (pairs(("k", 9, _array(13, 5000, b""))), "unknown type"),
        (pairs(("k", 9, _array(9, 1, _array(9, 1, _array(9, 1, _array(9, 1, _array(9, 1, b""))))))), "nested"),
        (pairs(("k", 13, b"")), "unknown type"),
        (pairs(("k", 7, b"\1"), ("k", 7, b"\1")), "there twice"),
        (pairs(("general.alignment", 4, struct.pack("<I", 0))), "alignment"),
        (pairs(("general.alignment", 4, struct.pack("<I", 33))), "alignment"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**40), "a name of"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2) + b"\xff\xff", "no text"),
        (pairs(tensors=1, tail=_text("t") + struct.pack("<I", 5)), "5 dimensions"),
        (pairs(tensors=1, tail=_text("t") + struct.pack("<IQQIQ", 2, 2**62, 4, 0, 0)), "larger than any file"),
        (pairs(tensors=1, tail=_text("t") + struct.pack("<IQIQ", 1, 33, 8, 0)), "whole blocks"),
        (pairs(tensors=1, tail=_text("t") + struct.pack("<IQIQ", 1, 32, 8, 2**63)), "larger than any file"),
        (pairs(tensors=200_000), "ends within"),
    ],
)
def test_hostile_files(content: bytes, why: str) -> None:
    source = Source(content)
    with pytest.raises(HeaderError, match=why):
        parse_gguf(source)
    assert len(source.reads) <= 3


def test_an_incredible_number_of_layers_costs_nothing() -> None:
    content = pairs(
        ("general.architecture", 8, _text("llama")),
        ("llama.block_count", 4, struct.pack("<I", 2**31 - 1)),
        ("llama.embedding_length", 4, struct.pack("<I", 64)),
        ("llama.attention.head_count", 4, struct.pack("<I", 4)),
    )
    assert facts_of_gguf(parse(content)).cache is None


@settings(max_examples=200)
@given(st.data())
def test_truncations_are_refused(tiny: bytes, data: st.DataObject) -> None:
    end = parse(tiny).data_offset - 32
    with pytest.raises(HeaderError, match="ends within"):
        parse(tiny[: data.draw(st.integers(0, end))])


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_mutations_end_with_a_header_or_an_error(tiny: bytes, data: st.DataObject) -> None:
    mutated = bytearray(tiny[:12_000])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutated) - 8))
        value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1))
        mutated[at : at + 8] = struct.pack("<Q", value)
    source = Source(bytes(mutated))
    with contextlib.suppress(HeaderError):
        facts_of_gguf(parse_gguf(source))
    assert sum(length for _, length in source.reads) <= 2 * MAX_HEADER_BYTES


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=400))
def test_any_bytes_behind_a_magic_end_with_a_header_or_an_error(rest: bytes) -> None:
    with contextlib.suppress(HeaderError):
        facts_of_gguf(parse(b"GGUF\3\0\0\0" + rest))
