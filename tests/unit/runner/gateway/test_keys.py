"""Who may come in."""

import os
from pathlib import Path

import pytest
from slipway_runner.gateway.keys import ApiKeys, read_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("first\n\n  second key  \n")
    return path


def test_without_a_file_everybody_comes_in() -> None:
    assert ApiKeys(None).admit("")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("Bearer first", True),
        ("bearer first", True),
        ("BEARER   first ", True),
        ("Bearer second key", True),
        ("Bearer second", False),
        ("Bearer firs", False),
        ("Bearer first2", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("", False),
        ("first", False),
        ("Basic first", False),
        ("Bearer f\udcffrst", False),
    ],
)
def test_one_of_the_keys_has_to_be_shown(file: Path, shown: str, expected: bool) -> None:
    assert ApiKeys(file).admit(shown) is expected


def test_a_file_that_was_replaced_counts_at_once(file: Path) -> None:
    keys = ApiKeys(file)
    assert keys.admit("Bearer first")
    new = file.with_name("new")
    new.write_text("third\n")
    new.replace(file)
    assert not keys.admit("Bearer first")
    assert keys.admit("Bearer third")


def test_a_file_that_was_written_over_counts_too(file: Path) -> None:
    keys = ApiKeys(file)
    assert keys.admit("Bearer first")
    before = file.stat()
    file.write_text(file.read_text().replace("first", "fifth"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert keys.admit("Bearer fifth")


def test_nobody_comes_in_while_there_are_no_keys(file: Path) -> None:
    keys = ApiKeys(file)
    assert keys.admit("Bearer first")
    text = file.read_text()
    file.unlink()
    assert not keys.admit("Bearer first")
    file.write_text("\n  \n")
    assert not keys.admit("Bearer first")
    assert not keys.admit("Bearer ")
    file.write_text(text)
    assert keys.admit("Bearer first")


def test_a_file_without_keys_is_no_file_of_keys(file: Path) -> None:
    assert read_keys(file) == (b"first", b"second key")
    file.write_text("\n")
    with pytest.raises(ValueError, match="no key"):
        read_keys(file)
