"""The command line of the installer: its table, its paths, its failures, and who may say yes to CUDA."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.backends import install as cli
from deploy.backends.store import InstallError
from tests.unit.deploy.fakes import REPOSITORY, WORKING, script


def test_the_command_installs_checks_and_tells_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compilerless: None
) -> None:
    good = script(tmp_path / "good/llama-server", WORKING)
    environ = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(good.parent)}
    program = tmp_path / "slipway/backends/llama-server/bin/llama-server"

    assert cli.main(["--check", "llama-server"], environ) == 1
    assert re.search(r"^llama-server +missing$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["--where", "llama-server"], environ) == 1
    assert capsys.readouterr().out == f"{program}\n"

    assert cli.main(["llama-server"], environ) == 0
    assert "found on PATH" in capsys.readouterr().out
    assert cli.main(["--check", "llama-server"], environ) == 0
    assert re.search(rf"^llama-server +ready .* 7 \(abc\) +{program}$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["--where", "llama-server"], environ) == 0
    assert cli.main(["--check", "llama-server", "vllm"], environ) == 1
    assert cli.main(["--check", "--build", "llama-server"], environ) == 1
    assert re.search(r"^llama-server +outdated$", capsys.readouterr().out, re.MULTILINE)


def test_a_failure_is_one_message_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compilerless: None
) -> None:
    assert cli.main(["llama-server"], {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}) == 1
    assert capsys.readouterr().err.startswith("\nllama-server: llama-server has to be compiled")


def test_a_cache_that_cannot_be_written_is_a_message_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slipway").write_text("a file")
    assert cli.main(["llama-server"], {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}) == 1
    assert str(tmp_path / "slipway") in capsys.readouterr().err


def test_an_unknown_backend_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["llama"], {})
    assert "llama-server, transformers, vllm" in capsys.readouterr().err


def test_it_runs_as_a_file_from_anywhere_with_nothing_installed(tmp_path: Path) -> None:
    argv: list[str | Path] = [sys.executable, "-I", "-S", REPOSITORY / "deploy/backends/install.py", "--check"]
    done = subprocess.run(argv, cwd=tmp_path, env={"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout.decode().count("missing") == 2
    assert done.stderr == b""


class Terminal:
    def __init__(self, answer: str, *, is_one: bool = True) -> None:
        self._answer, self._is_one = answer, is_one

    def isatty(self) -> bool:
        return self._is_one

    def readline(self) -> str:
        return self._answer


@pytest.mark.parametrize(
    ("environ", "terminal", "yes", "goes_on"),
    [
        ({}, Terminal("y\n"), False, True),
        ({}, Terminal("\n"), False, False),
        ({}, Terminal(""), False, False),
        ({}, Terminal("y\n", is_one=False), False, False),
        ({"CI": "true"}, Terminal("y\n"), False, False),
        ({"CI": "true"}, Terminal("", is_one=False), True, True),
    ],
)
def test_who_can_say_yes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
    terminal: Terminal,
    yes: bool,
    goes_on: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", terminal)
    consent = cli.consent_from(environ, yes=yes)
    if goes_on:
        consent("2.5 GB")
    else:
        with pytest.raises(InstallError, match="Nothing was downloaded"):
            consent("2.5 GB")
    assert "2.5 GB" in capsys.readouterr().out
