"""What is asked for, said in three ways."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from slipway_registry.preload.targets import Choice, Target, targets
from slipway_service.config import UsageError
from slipway_service.weights.selection import (
    DefaultSelection,
    EverySelection,
    PatternSelection,
    Selection,
    VariantSelection,
)


def asked(
    *models: str,
    choice: Choice | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[tuple[str, str, str, Selection]]:
    found = targets(models, choice or Choice(), file, environment or {})
    return [(it.name, it.repo, it.revision, it.selection) for it in found]


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return path


def test_models_of_the_command_line_share_a_choice() -> None:
    choice = Choice(variant="Q4_K_M")
    assert asked("org/a", "org/b@v1.0", choice=choice) == [
        ("org/a", "org/a", "main", VariantSelection("Q4_K_M")),
        ("org/b@v1.0", "org/b", "v1.0", VariantSelection("Q4_K_M")),
    ]


@pytest.mark.parametrize(
    ("choice", "selection"),
    [
        (Choice(), DefaultSelection()),
        (Choice(everything=True), EverySelection()),
        (Choice(files=["*.json"], exclude=["b*"]), PatternSelection(("*.json",), ("b*",))),
        (Choice(exclude=["b*"]), PatternSelection((), ("b*",))),
    ],
)
def test_a_choice_is_one_selection(choice: Choice, selection: Selection) -> None:
    assert choice.selection() == selection


@pytest.mark.parametrize("choice", [Choice(variant="a", everything=True), Choice(variant="a", files=["b"])])
def test_two_choices_are_one_too_many(choice: Choice) -> None:
    with pytest.raises(UsageError, match="one of them"):
        asked("org/a", choice=choice)


def test_tables_of_a_file(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        [embedding]
        model = "org/embedder"
        revision = "v2"
        files = ["*.json", "*.safetensors"]
        exclude = ["onnx/*"]

        [chat]
        model = "org/chat@abc1234"
        variant = "Q4_K_M"

        [whole]
        model = "org/whole"
        all = true
        """,
    )
    assert asked(file=file) == [
        ("embedding", "org/embedder", "v2", PatternSelection(("*.json", "*.safetensors"), ("onnx/*",))),
        ("chat", "org/chat", "abc1234", VariantSelection("Q4_K_M")),
        ("whole", "org/whole", "main", EverySelection()),
    ]


def test_a_file_and_models_add_up(tmp_path: Path) -> None:
    file = toml(tmp_path, '[embedding]\nmodel = "org/e"\n')
    assert [name for name, *_ in asked("org/a", file=file)] == ["org/a", "embedding"]


@pytest.mark.parametrize("variable", ["SLIPWAY_PRELOAD", "HF_PRELOAD_TARGETS"])
def test_names_in_the_environment(variable: str) -> None:
    environment = {
        variable: "embedding, re-ranker,",
        "HF_EMBEDDING_MODEL_ID": "org/embedder",
        "HF_EMBEDDING_REVISION": "v1",
        "HF_EMBEDDING_FILES": "*.json, *.onnx",
        "HF_RE_RANKER_MODEL_ID": "org/reranker@v2",
        "HF_RE_RANKER_VARIANT": "onnx-int8",
        "HF_OTHER_MODEL_ID": "org/not-named",
    }
    assert asked(environment=environment) == [
        ("embedding", "org/embedder", "v1", PatternSelection(("*.json", "*.onnx"), ())),
        ("re-ranker", "org/reranker", "v2", VariantSelection("onnx-int8")),
    ]


def test_our_own_list_is_before_the_other() -> None:
    environment = {
        "SLIPWAY_PRELOAD": "a",
        "HF_PRELOAD_TARGETS": "b",
        "HF_A_MODEL_ID": "org/a",
        "HF_B_MODEL_ID": "org/b",
    }
    assert [name for name, *_ in asked(environment=environment)] == ["a"]


def test_the_command_line_is_before_the_environment(tmp_path: Path) -> None:
    environment = {"SLIPWAY_PRELOAD": "a", "HF_A_MODEL_ID": "org/a"}
    assert [name for name, *_ in asked("org/b", environment=environment)] == ["org/b"]
    file = toml(tmp_path, '[c]\nmodel = "org/c"\n')
    assert [name for name, *_ in asked(file=file, environment=environment)] == ["c"]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'plain = 1\n[a]\nmodell = "org/a"\n[b]\nrevision = "v"\n[c]\nmodel = "org/c@v"\nrevision = "w"\n'
        '[d]\nmodel = "org/d"\nfiles = "*.json"\n',
    )
    with pytest.raises(UsageError) as caught:
        asked("a/b/c", "org/x@", file=file)
    said = caught.value.args
    assert len(said) == 7
    for part in (
        "a/b/c: give a model repository as owner/name",
        "org/x@: org/x@: give one revision",
        f"{file}: plain: a table is expected",
        f"{file}: a: unknown modell; there are model, revision",
        f"{file}: b: model is missing",
        "c: org/c@v: give one revision",
        f"{file}: d: files is not a list of texts",
    ):
        assert any(part in line for line in said)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "nothing to preload: name models, give a --file, or set SLIPWAY_PRELOAD"),
        ({"SLIPWAY_PRELOAD": "a"}, "HF_A_MODEL_ID is not set, and SLIPWAY_PRELOAD names a"),
        ({"HF_PRELOAD_TARGETS": "org/m"}, "HF_PRELOAD_TARGETS: 'org/m' is no name of a target"),
    ],
)
def test_what_is_wrong_with_the_environment(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match="^" + said):
        asked(environment=environment)


def test_a_choice_without_models_is_refused() -> None:
    with pytest.raises(UsageError, match="are for models on the command line"):
        asked(choice=Choice(variant="a"), environment={"SLIPWAY_PRELOAD": "a", "HF_A_MODEL_ID": "org/a"})


@pytest.mark.parametrize(("text", "said"), [(None, "No such file"), ("[a\n", "Expected")])
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "none.toml" if text is None else toml(tmp_path, text)
    with pytest.raises(UsageError, match=f"{file}: {said}"):
        asked(file=file)


def test_a_target_is_a_value() -> None:
    assert Target.parse("a", "org/a@v", "", Choice()) == Target.parse("a", "org/a", "v", Choice())
