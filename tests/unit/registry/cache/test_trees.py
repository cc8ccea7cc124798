from pathlib import Path

from huggingface_hub._tree_cache import read_tree_cache
from slipway_registry.cache.trees import tree_json
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

from tests.hub.content import git_sha1

FILES = [
    RepoFile(path=FilePath("z/model.gguf"), size_bytes=3, blob_id="2" * 64, lfs=True, xet_hash="3" * 64),
    RepoFile(path=FilePath("config.json"), size_bytes=2, blob_id="1" * 40),
]


def test_huggingface_hub_reads_it(tmp_path: Path) -> None:
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / f"{'c' * 40}.json").write_bytes(tree_json(FILES))
    found = read_tree_cache(str(tmp_path), "c" * 40)
    assert found is not None
    assert list(found) == ["config.json", "z/model.gguf"]
    plain, large = found["config.json"], found["z/model.gguf"]
    assert (plain.size, plain.blob_id, plain.lfs_sha256) == (2, "1" * 40, None)
    assert (large.size, large.lfs_sha256, large.lfs_size, large.xet_hash) == (3, "2" * 64, 3, "3" * 64)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'2' * 64}\nsize 3\n"
    assert large.blob_id == git_sha1(pointer.encode())
