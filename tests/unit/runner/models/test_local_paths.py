from pathlib import Path

import pytest
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.spec import PathSource
from slipway_service.fault import Fault, Reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "model" / "deep").mkdir(parents=True)
    for name in ("model/a.gguf", "model/deep/b.gguf", "model/bad\\name.gguf"):
        (root / name).write_bytes(b"1234")
    (tmp_path / "outside.gguf").write_bytes(b"12345")
    (root / "model" / "out.gguf").symlink_to(tmp_path / "outside.gguf")
    (root / "model" / "in.gguf").symlink_to(root / "model" / "a.gguf")
    (root / "model" / "pipe.gguf").symlink_to("/dev/null")
    return root


def names(paths: LocalPaths, path: Path) -> list[str]:
    description, _ = paths.describe(PathSource(path=path))
    return [str(file.path) for file in description.files]


def test_a_directory_holds_its_files_but_for_links_out_of_the_roots(root: Path) -> None:
    assert names(LocalPaths((root,)), root / "model") == ["a.gguf", "deep/b.gguf", "in.gguf"]


def test_of_a_file_the_neighbours_are_seen(root: Path) -> None:
    description, folder = LocalPaths((root,)).describe(PathSource(path=root / "model" / "a.gguf"))
    assert [str(file.path) for file in description.files] == ["a.gguf", "in.gguf"]
    assert folder == root / "model"


def test_a_link_to_another_root_is_followed(root: Path, tmp_path: Path) -> None:
    assert "out.gguf" in names(LocalPaths((root, tmp_path)), root / "model")


@pytest.mark.parametrize("path", ["model/out.gguf", "../outside.gguf", "model/../../outside.gguf", "/etc/passwd"])
def test_what_lies_outside_is_refused_whatever_it_is_called(root: Path, path: str) -> None:
    with pytest.raises(Fault) as refused:
        LocalPaths((root,)).describe(PathSource(path=root / path))
    assert refused.value.reason is Reason.PATH_NOT_ALLOWED


def test_without_roots_nothing_is_allowed(root: Path) -> None:
    with pytest.raises(Fault) as refused:
        LocalPaths().describe(PathSource(path=root / "model"))
    assert refused.value.reason is Reason.PATH_NOT_ALLOWED
    assert "none is configured" in refused.value.text


def test_what_is_not_there_is_missing(root: Path) -> None:
    with pytest.raises(Fault) as refused:
        LocalPaths((root,)).describe(PathSource(path=root / "nothing"))
    assert refused.value.reason is Reason.MODEL_FILE_MISSING
    assert refused.value.resource == str(root / "nothing")
