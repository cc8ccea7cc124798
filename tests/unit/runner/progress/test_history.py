"""What is remembered of loads."""

from pathlib import Path

import pytest
from slipway_runner.progress.history import MAX_MODELS, Expected, History
from slipway_runner.progress.signals import LoadStage

USUAL = {LoadStage.STARTING: 1.0, LoadStage.LOADING_WEIGHTS: 2.0, LoadStage.WARMING_UP: 3.0}


def test_without_history_the_usual_is_expected(tmp_path: Path) -> None:
    assert History(tmp_path / "history.json").expected("m", USUAL) == Expected(USUAL, measured=False)


def test_what_was_measured_is_expected_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    History(path).record("m", {LoadStage.STARTING: 0.5, LoadStage.LOADING_WEIGHTS: 40.0})
    assert History(path).expected("m", USUAL) == Expected(
        {LoadStage.STARTING: 0.5, LoadStage.LOADING_WEIGHTS: 40.0, LoadStage.WARMING_UP: 3.0}, measured=True
    )


def test_a_download_is_not_expected_again(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    history.record("m", {LoadStage.FETCHING: 600.0})
    assert LoadStage.FETCHING not in history.expected("m", USUAL).seconds


@pytest.mark.parametrize("content", ["", "{", "[]", '{"m": 1}', '{"m": {"STARTING": "x"}}', '{"m": {"GONE": 1}}'])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "history.json"
    path.write_text(content)
    history = History(path)
    assert history.expected("m", USUAL).seconds == USUAL
    history.record("n", {LoadStage.STARTING: 9.0})
    assert History(path).expected("n", USUAL).measured


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    for number in range(MAX_MODELS + 1):
        history.record(str(number), {LoadStage.STARTING: 1.0})
    assert not history.expected("0", USUAL).measured
    assert history.expected("1", USUAL).measured
