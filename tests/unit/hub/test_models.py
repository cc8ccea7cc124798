import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.hub.gguf_header import read_header
from tests.hub.models import chat_folder, chat_gguf, kquants, safetensors, vocabulary
from tests.hub.models.chat import SENTENCES, ChatModel
from tests.hub.models.noise import Weights, uniform

TINY = ChatModel(name="nano-chat", layers=1, feed_forward=256)


@pytest.mark.parametrize(
    ("quantise", "kind", "error"),
    [(kquants.q4_k, gguf.GGMLQuantizationType.Q4_K, 0.08), (kquants.q6_k, gguf.GGMLQuantizationType.Q6_K, 0.02)],
)
def test_k_quants_read_back(quantise: object, kind: gguf.GGMLQuantizationType, error: float) -> None:
    assert callable(quantise)
    for tensor in (uniform("x", 6, 512, rms=0.3), np.zeros((2, 256), np.float32), np.abs(uniform("y", 1, 256))):
        packed = quantise(tensor)
        assert packed.shape == gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        back: Weights = gguf.dequantize(packed, kind)
        assert np.sqrt(np.mean((back - tensor) ** 2)) <= error * np.sqrt(np.mean(tensor**2))


@pytest.mark.parametrize(
    ("name", "file_type", "kinds"),
    [
        ("Q4_K_M", 15, {"F32", "Q4_K", "Q6_K"}),
        ("Q8_0", 7, {"F32", "Q8_0"}),
        ("F16", 1, {"F32", "F16"}),
        ("BF16", 32, {"F32", "BF16"}),
        ("F32", 0, {"F32"}),
    ],
)
def test_gguf_types(tmp_path: Path, name: str, file_type: int, kinds: set[str]) -> None:
    (path,) = chat_gguf.write(TINY, name, tmp_path / "m.gguf")
    reader = gguf.GGUFReader(path)
    assert {tensor.tensor_type.name for tensor in reader.tensors} == kinds
    field = reader.get_field("general.file_type")
    assert field is not None
    assert field.contents() == file_type
    header = read_header(path)
    assert header is not None
    values, total = header
    assert values["general.file_type"] == file_type
    assert values["tokenizer.chat_template"] == vocabulary.CHAT_TEMPLATE
    assert total == sum(tensor.n_elements for tensor in reader.tensors)


def test_split_gguf_has_every_tensor_once(tmp_path: Path) -> None:
    whole = gguf.GGUFReader(chat_gguf.write(TINY, "F32", tmp_path / "whole.gguf")[0])
    parts = chat_gguf.write(TINY, "F32", tmp_path / "m.gguf", parts=3)
    assert [path.name for path in parts] == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    names = [tensor.name for path in parts for tensor in gguf.GGUFReader(path).tensors]
    assert names == [tensor.name for tensor in whole.tensors]


def test_what_is_no_gguf_has_no_header(tmp_path: Path) -> None:
    (path,) = chat_gguf.write(TINY, "F16", tmp_path / "m.gguf")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "other").write_bytes(b"PK" * 50)
    assert read_header(tmp_path / "cut") is None
    assert read_header(tmp_path / "other") is None


def test_safetensors_shards_and_their_index(tmp_path: Path) -> None:
    chat_folder.write(TINY, tmp_path, shards=4)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    expected = dict(TINY.tensors())
    sizes = []
    for shard in sorted(set(index["weight_map"].values())):
        data = (tmp_path / shard).read_bytes()
        (count,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + count])
        header.pop("__metadata__")
        sizes.append(len(data) - 8 - count)
        for name, entry in header.items():
            start, stop = (8 + count + offset for offset in entry["data_offsets"])
            halves = np.frombuffer(data[start:stop], "<u2").astype(np.uint32)
            back = (halves << 16).view(np.float32).reshape(entry["shape"])
            assert np.allclose(back, expected.pop(name), rtol=2**-8)
            assert index["weight_map"][name] == shard
    assert expected == {}
    assert len(sizes) == 4
    assert index["metadata"]["total_size"] == sum(sizes)
    assert max(sizes) < 2 * min(sizes)


def test_bfloat16_rounds_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.0], dtype=np.float32)
    assert np.frombuffer(safetensors.bfloat16(values), "<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0xC000]


def test_every_sentence_determines_its_words() -> None:
    for name in SENTENCES:
        model = ChatModel(name=name, layers=1)
        follows = vocabulary.successors(model.vocabulary, model.sentence)
        said, token = "", follows[vocabulary.ASSISTANT]
        while token != vocabulary.END:
            said += model.vocabulary.tokens[token].replace("\u0120", " ")
            token = follows[token]
        assert said == model.sentence
    with pytest.raises(ValueError, match="twice"):
        vocabulary.successors(model.vocabulary, "Hello am am")
