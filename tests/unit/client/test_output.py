"""What a command prints of a text that somebody else chose."""

import io
import json

import pytest
from rich.text import Text
from slipway_client.cli.output import Output

HOSTILE = "a\x1b[2Jb\x9b31mc\x07d\0e\rf"


def control(text: str) -> set[str]:
    return {letter for letter in text if letter != "\n" and (ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0)}


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Output:
    made = Output()
    for console in (made.console, made.errors):
        console.file = io.StringIO()
        console._force_terminal = request.param
        monkeypatch.setattr(console, "_color_system", None)
    return made


def printed(output: Output) -> str:
    found = ""
    for console in (output.console, output.errors):
        assert isinstance(console.file, io.StringIO)
        found += console.file.getvalue()
    return found


def test_control_characters_have_no_effect(output: Output) -> None:
    output.line(HOSTILE, (HOSTILE, "bold"), Text(HOSTILE))
    output.table(["HOLDER"], [[HOSTILE], [Text(HOSTILE)]])
    output.failure("REASON", HOSTILE)
    output.console.print(HOSTILE, end="", soft_wrap=True)
    text = printed(output)
    assert control(text) == set()
    assert text.count("a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}31mc") == 7


def test_lines_end_and_letters_of_other_scripts_stay(output: Output) -> None:
    output.line("日本語 für ✓\nzwei")
    assert printed(output) == "日本語 für ✓\nzwei\n"


def test_json_has_them_escaped(output: Output) -> None:
    output.json({"holder": HOSTILE})
    text = printed(output)
    assert control(text) == set()
    assert json.loads(text) == {"holder": HOSTILE}
