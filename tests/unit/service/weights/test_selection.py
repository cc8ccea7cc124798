"""What a selection comes to."""

import pytest
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st
from slipway_service.fault import Fault, Reason
from slipway_service.weights.selection import (
    MAX_PATTERNS,
    DefaultSelection,
    EverySelection,
    PatternSelection,
    SelectedFiles,
    Selection,
    VariantSelection,
    select,
)
from slipway_service.weights.variants import find_variants

from tests.unit.service.weights.repo_files import files

SENTENCE_TRANSFORMER = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/pytorch_model.bin",
    "README.md",
    "config.json",
    "model.safetensors",
    "modules.json",
    "onnx/model.onnx",
    "onnx/model_O1.onnx",
    "onnx/model.onnx_data",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "pytorch_model.bin",
    "rust_model.ot",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.gguf",
    "tokenizer.json",
]
KEPT_OF_IT = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/pytorch_model.bin",
    "README.md",
    "config.json",
    "model.safetensors",
    "modules.json",
    "tokenizer.json",
]
GGUFS = [
    "Q8_0/m-Q8_0-00001-of-00002.gguf",
    "Q8_0/m-Q8_0-00002-of-00002.gguf",
    "README.md",
    "config.json",
    "docs/plot.png",
    "extra/params.json",
    "m-Q4_K_M.gguf",
    "mmproj-BF16.gguf",
    "mmproj-F16.gguf",
    "imatrix_unsloth.gguf",
]


def chosen(paths: list[str], selection: Selection) -> SelectedFiles:
    listed = files(*paths)
    return select(listed, find_variants(listed), selection)


def paths_of(selected: SelectedFiles) -> list[str]:
    return [file.path for file in selected.files]


def test_the_default_leaves_out_what_repeats_the_weights_and_says_so() -> None:
    selected = chosen(SENTENCE_TRANSFORMER, DefaultSelection())
    assert paths_of(selected) == KEPT_OF_IT
    assert selected.variant == ""
    for word in ("TensorFlow (tf_model.h5)", "Flax", "Rust", "ONNX", "OpenVINO", "PyTorch (pytorch_model.bin)", "GGUF"):
        assert word in selected.explanation
    assert "Left out 10.0 kB that repeat" in selected.explanation


def test_the_only_weights_repeat_nothing() -> None:
    assert paths_of(chosen(["config.json", "tf_model.h5"], DefaultSelection())) == ["config.json", "tf_model.h5"]
    assert paths_of(chosen(["pytorch_model.bin", "x.onnx"], DefaultSelection())) == ["pytorch_model.bin", "x.onnx"]
    original = ["config.json", "original/consolidated.00.pth", "original/params.json"]
    assert "original/consolidated.00.pth" in paths_of(chosen(original, DefaultSelection()))


def test_a_repository_of_ggufs_gives_its_default_variant_with_what_belongs_to_it() -> None:
    selected = chosen(GGUFS, DefaultSelection())
    assert selected.variant == "Q4_K_M"
    assert paths_of(selected) == ["README.md", "config.json", "m-Q4_K_M.gguf", "mmproj-F16.gguf"]
    assert "of 2 variants, Q4_K_M is taken" in selected.explanation
    assert selected.size_bytes == 4000


def test_a_variant_takes_its_parts_one_projector_and_the_files_beside_it() -> None:
    selected = chosen(GGUFS, VariantSelection("Q8_0"))
    assert paths_of(selected) == [
        "Q8_0/m-Q8_0-00001-of-00002.gguf",
        "Q8_0/m-Q8_0-00002-of-00002.gguf",
        "README.md",
        "config.json",
        "mmproj-F16.gguf",
    ]
    assert selected.variant == "Q8_0"
    assert chosen(GGUFS, VariantSelection("q8_0")).variant == "Q8_0"


def test_a_set_takes_its_own_index_and_no_other() -> None:
    paths = [
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "model.fp16-00001-of-00001.safetensors",
        "model.safetensors.index.fp16.json",
        "pytorch_model.bin.index.json",
    ]
    plain = ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert paths_of(chosen(paths, VariantSelection("safetensors"))) == plain
    half = ["config.json", "model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"]
    assert paths_of(chosen(paths, VariantSelection("safetensors-fp16"))) == half


def test_modules_of_a_sentence_transformer_come_with_its_weights() -> None:
    selected = paths_of(chosen(SENTENCE_TRANSFORMER, VariantSelection("safetensors")))
    assert {"1_Pooling/config.json", "2_Dense/config.json", "modules.json", "tokenizer.json"} <= set(selected)
    assert "pytorch_model.bin" not in selected


def test_a_variant_that_lacks_parts_says_so() -> None:
    selected = chosen(["m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"], VariantSelection("Q4_K_M"))
    assert "m-Q4_K_M-00002-of-00002.gguf" in selected.explanation


def test_an_unknown_variant_names_those_there_are() -> None:
    with pytest.raises(Fault, match=r"no variant 'Q2_K'. It has: Q4_K_M, Q8_0") as caught:
        chosen(GGUFS, VariantSelection("Q2_K"))
    assert (caught.value.reason, caught.value.resource) == (Reason.VARIANT_NOT_FOUND, "Q2_K")
    with pytest.raises(Fault, match="and 960 more"):
        chosen([f"m{n}/x-Q4_K_M.gguf" for n in range(1000)], VariantSelection("none"))


def test_everything_is_everything() -> None:
    assert paths_of(chosen(GGUFS, EverySelection())) == sorted(GGUFS)


def test_patterns() -> None:
    assert paths_of(chosen(GGUFS, PatternSelection(("*.json",), ("extra/*",)))) == ["config.json"]
    assert paths_of(chosen(GGUFS, PatternSelection((), ("*.gguf", "docs/")))) == [
        "README.md",
        "config.json",
        "extra/params.json",
    ]


def test_nothing_selected_is_a_fault() -> None:
    with pytest.raises(Fault) as caught:
        chosen(GGUFS, PatternSelection(("*.safetensors",)))
    assert caught.value.reason is Reason.SELECTION_EMPTY
    with pytest.raises(Fault) as caught:
        chosen([], DefaultSelection())
    assert caught.value.reason is Reason.SELECTION_EMPTY


_PATTERN = st.text(alphabet="ab*?[]!-/.", min_size=1, max_size=8)


@given(st.lists(_PATTERN, min_size=1, max_size=3), st.lists(_PATTERN, max_size=3))
def test_patterns_match_as_huggingface_hubs(include: list[str], exclude: list[str]) -> None:
    listed = files("a", "b/a", "a/b/a.b", "a-b", "ab/x", "b.a")
    theirs = list(
        filter_repo_objects((str(file.path) for file in listed), allow_patterns=include, ignore_patterns=exclude)
    )
    try:
        ours = paths_of(select(listed, (), PatternSelection(tuple(include), tuple(exclude))))
    except Fault:
        ours = []
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize(("include", "exclude"), [(["x"] * (MAX_PATTERNS + 1), []), ([""], []), ([], ["y" * 257])])
def test_patterns_are_bounded(include: list[str], exclude: list[str]) -> None:
    with pytest.raises(ValueError, match="give"):
        PatternSelection.parse(include, exclude)
