"""docs/shared-cache.md: each statement names the tests that hold it, and its commands are commands."""

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from slipway_registry.preload.command import command
from slipway_registry.preload.targets import Choice, targets

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/shared-cache.md").read_text()
COMMENT = re.compile(r"<!-- (.*?) -->")


def statements() -> list[str]:
    """List items, and rows of tables without their heads."""
    lines = PAGE.splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    return [*(line for line in lines if line.startswith("- ")), *rows]


def named() -> list[str]:
    return sorted({test for found in COMMENT.findall(PAGE) for test in found.split() if "::" in test})


@cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(it.name for it in tree.body if isinstance(it, kinds) and it.name.startswith("test_"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def preloads() -> list[str]:
    """Every command line of the page that preloads, put on one line."""
    text = "\n".join([*blocks("sh"), *blocks("dockerfile")]).replace("\\\n", " ")
    return [line for line in text.splitlines() if "slipway-registry preload" in line]


def test_every_statement_names_its_tests() -> None:
    assert len(statements()) > 30, "the pattern is wrong"
    assert not [line for line in statements() if not COMMENT.search(line)]


@pytest.mark.parametrize("test", named())
def test_every_test_that_is_named_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert (ROOT / file).is_file()
    assert name in defined_in(file)


@pytest.mark.parametrize("line", preloads())
def test_commands_of_the_page_preload_what_they_name(line: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    (table,) = blocks("toml")
    file.write_text(table)
    before, _, arguments = line.partition("slipway-registry preload")
    environment = dict(re.findall(r"\b((?:SLIPWAY|HF)_\w+)=(\S+)", before + " ".join(re.findall("ARG (.*)", PAGE))))
    given = [str(file) if word == "models.toml" else word for word in shlex.split(arguments)]
    with command().make_context("preload", given) as context:
        asked = context.params
    choice = Choice(variant=asked["variant"], files=asked["include"], exclude=asked["exclude"])
    assert targets(asked["models"], choice, asked["file"], environment)


def test_the_file_of_the_page_is_one() -> None:
    (table,) = blocks("toml")
    assert tomllib.loads(table)["embedding"]["model"]
