"""What a model card says."""

from pathlib import Path

import pytest
from slipway_registry.hub.card import MAX_CARD_BYTES, summary_of_card
from slipway_registry.hub.summary import RepoSummary
from slipway_service.weights.names import Commit, RepoId

REPO, COMMIT = RepoId("org/m"), Commit("c" * 40)


def read(directory: Path, content: str) -> RepoSummary:
    card = directory / "README.md"
    card.write_text(content)
    return summary_of_card(REPO, COMMIT, card)


def test_a_card_says_licence_task_library_and_tags(tmp_path: Path) -> None:
    found = read(tmp_path, "---\nlicense: mit\npipeline_tag: text-generation\nlibrary_name: x\ntags: [a, 7]\n---\nhi\n")
    assert (found.license, found.pipeline_tag, found.library) == ("mit", "text-generation", "x")
    assert found.tags == ("a", "license:mit")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no block at all",
        "---\n- a\n- list\n---\n",
        "---\n{[\n---\n",
        "---\nlicense: [mit, apache-2.0]\ntags: 3\npipeline_tag: {}\n---\n",
        '---\nx: "\\ud800"\n---\n' + "x" * MAX_CARD_BYTES,
        "---\nlicense: mit\n---\n" + "x" * MAX_CARD_BYTES,
    ],
)
def test_what_says_nothing_breaks_nothing(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == RepoSummary(repo=REPO, commit=COMMIT)
    assert summary_of_card(REPO, COMMIT, tmp_path / "none") == RepoSummary(repo=REPO, commit=COMMIT)
