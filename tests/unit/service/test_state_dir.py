"""The state directory: one holder, and addresses that are whole or absent."""

import json
from pathlib import Path

import pytest
from slipway_service.state_dir import StartError, hold


def test_addresses_are_there_while_the_directory_is_held(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    with hold(path) as state:
        state.announce({"grpc": "127.0.0.1:1", "metrics": "127.0.0.1:2"})
        state.announce({"gateway": "127.0.0.1:3"})
        assert (path / "address").read_text() == "127.0.0.1:1\n"
        assert json.loads((path / "addresses.json").read_text()) == {
            "grpc": "127.0.0.1:1",
            "metrics": "127.0.0.1:2",
            "gateway": "127.0.0.1:3",
        }
    assert [found.name for found in path.iterdir()] == ["lock"]


def test_what_another_left_is_withdrawn(tmp_path: Path) -> None:
    (tmp_path / "address").write_text("127.0.0.1:9\n")
    with hold(tmp_path):
        assert not (tmp_path / "address").exists()


def test_a_second_holder_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    with hold(tmp_path) as state:
        state.announce({"grpc": "127.0.0.1:1"})
        with pytest.raises(StartError, match="in use by process"), hold(tmp_path):
            pass
        assert (tmp_path / "address").exists()
    with hold(tmp_path):
        pass


def test_a_directory_that_cannot_be_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file"), hold(tmp_path / "file"):
        pass


def test_addresses_that_cannot_be_written_are_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "address.new").mkdir()
    with hold(tmp_path) as state, pytest.raises(StartError, match=r"address\.new: Is a directory"):
        state.announce({"grpc": "127.0.0.1:1"})
