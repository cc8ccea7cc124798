"""docs/cli.md has every command and option there is, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from slipway_client.cli.main import app

DOCS = Path("docs/cli.md").read_text()
BESIDE = {"--help", "--install-completion", "--show-completion", "--version"}
"""Options that every such program has."""


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by the words that people type."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")} - BESIDE


def usage_of(name: str) -> str:
    """The code that documents a command: all of its synopses in the tables."""
    found = re.findall(rf"`{re.escape(name)}(?: [^`]*)?`", DOCS)
    return " ".join(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_its_options(name: str) -> None:
    usage = usage_of(name)
    assert usage, f"{name} is not in docs/cli.md"
    written = set(re.findall(r"--[a-z-]+", usage))
    assert options(COMMANDS[name]) <= written | {"--limit"}, "-n is what people write for it"


def test_nothing_else_is_documented() -> None:
    known = {flag for command in COMMANDS.values() for flag in options(command)} | options(typer.main.get_command(app))
    services = {"--export-roots"}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", DOCS)) - services <= known


@pytest.mark.parametrize("name", sorted(set(COMMANDS)))
def test_every_command_says_what_a_line_of_json_is(name: str) -> None:
    table = DOCS[DOCS.index("| command | a line is |") : DOCS.index("Messages are proto3 JSON")]
    assert f"`{name}`" in table
