"""Which files a number of loaded tensors amounts to."""

import json
from pathlib import Path

import pytest
from slipway_runner.progress.shards import Loaded, ShardMap, Tensor, natural_key, read_shard_map


def write_safetensors(path: Path, tensors: dict[str, int]) -> None:
    """A file whose tensors have as many bytes as told."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + bytes(offset))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files as a checkpoint of a Llama is cut: in the order of its layers, the head last."""
    one, two = tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model-00002-of-00002.safetensors"
    write_safetensors(one, {"model.embed_tokens.weight": 100, "model.layers.0.mlp.weight": 10})
    write_safetensors(two, {"model.layers.2.mlp.weight": 10, "model.layers.10.mlp.weight": 10, "lm_head.weight": 100})
    return [one, two]


def test_tensors_are_loaded_in_the_order_of_their_names(files: list[Path]) -> None:
    shard_map = read_shard_map(files)
    assert shard_map is not None
    assert (shard_map.tensors, shard_map.shards, shard_map.size_bytes) == (5, 2, 230)
    one, two = (path.name for path in files)
    # lm_head (2), embed_tokens (1), layers 0 (1), 2 (2), 10 (2)
    assert [shard_map.loaded(count) for count in range(6)] == [
        Loaded(shards=0, bytes=0, current=two),
        Loaded(shards=0, bytes=100, current=one),
        Loaded(shards=0, bytes=200, current=one),
        Loaded(shards=1, bytes=210, current=two),
        Loaded(shards=1, bytes=220, current=two),
        Loaded(shards=2, bytes=230, current=""),
    ]


@pytest.mark.parametrize("count", [-1, 99])
def test_a_count_out_of_bounds_is_none_or_all(files: list[Path], count: int) -> None:
    shard_map = read_shard_map(files)
    assert shard_map is not None
    assert shard_map.loaded(count).shards == (0 if count < 0 else 2)


def test_a_file_without_tensors_is_loaded() -> None:
    assert ShardMap(["a", "b"], [Tensor("x", 0, 1)]).loaded(1).shards == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b'\x09\x00\x00\x00\x00\x00\x00\x00{"a": {}}'],
)
def test_what_is_no_safetensors_has_no_map(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_shard_map([path]) is None
    assert read_shard_map([tmp_path / "missing"]) is None
    assert read_shard_map([]) is None


def test_numbers_count_as_numbers() -> None:
    names = ["a.10.w", "b", "a.2.w", "a.w", "a.w_11", "a.w_2", "1"]
    assert sorted(names, key=natural_key) == ["1", "a.2.w", "a.10.w", "a.w", "a.w_2", "a.w_11", "b"]
