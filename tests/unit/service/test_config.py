"""Where values come from, and what is refused."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
from click.testing import CliRunner
from pydantic import Field
from slipway_registry.config import RegistrySettings
from slipway_runner.config import RunnerSettings
from slipway_service.config import PROGRAMS, ServiceSettings, Settings, UsageError, load
from slipway_service.logs import LogFormat
from slipway_service.options import command, group, main, markdown, options
from slipway_service.values import Duration, Listen, ListenAddress, Size

LOCAL = ListenAddress("127.0.0.1", 1)


class Example(ServiceSettings):
    """A program's options."""

    program: ClassVar[str] = "slipway-registry"
    internal: ClassVar[frozenset[str]] = frozenset({"SLIPWAY_REGISTRY_INSTANCE"})

    listen: Listen = Field(default=LOCAL, description="Where.")
    metrics_listen: Listen = Field(default=LOCAL, description="Where metrics are.")
    state_dir: Path = Field(default=Path("/state"), description="State.")
    timeout: Duration = Field(default=90.0, gt=0, description="How long.")
    quota: Size | None = Field(default=None, description="How much.")
    roots: tuple[Path, ...] = Field(default=(), description="Allowed roots.")
    limits: list[Size] = Field(default=[1024], description="Sizes.")
    slots: int = Field(default=4, ge=1, description="How many.")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLIPWAY_"):
            monkeypatch.delenv(name)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "slipway.toml"
    path.write_text(text)
    return path


def test_flag_before_environment_before_file_before_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml(tmp_path, 'timeout = "1s"\n')
    assert load(Example, {}).timeout == 90
    assert load(Example, {}, path).timeout == 1
    monkeypatch.setenv("SLIPWAY_REGISTRY_TIMEOUT", "2s")
    assert load(Example, {}, path).timeout == 2
    assert load(Example, {"timeout": "3s"}, path).timeout == 3


def test_the_file_may_be_named_by_variable_and_the_flag_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTRY_CONFIG", str(toml(tmp_path, "slots = 7\n")))
    assert load(Example, {}).slots == 7
    other = tmp_path / "other.toml"
    other.write_text("slots = 8\n")
    assert load(Example, {}, other).slots == 8


def test_values_are_typed_wherever_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTRY_LISTEN", "[::1]:7")
    monkeypatch.setenv("SLIPWAY_REGISTRY_ROOTS", "/a, /b")
    monkeypatch.setenv("SLIPWAY_REGISTRY_QUOTA", "1GiB")
    settings = load(Example, {"insecure": False, "log_format": "json"}, toml(tmp_path, 'limits = ["1KiB", 5]\n'))
    assert settings.listen == ListenAddress("::1", 7)
    assert settings.roots == (Path("/a"), Path("/b"))
    assert settings.quota == 2**30
    assert settings.limits == [1024, 5]
    assert settings.log_format is LogFormat.JSON


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("SLIPWAY_REGISTRY_TIMEUOT", "did you mean SLIPWAY_REGISTRY_TIMEOUT?"),
        ("SLIPWAY_REGISTRI_LISTEN", "did you mean SLIPWAY_REGISTRY_LISTEN?"),
        ("SLIPWAY_NONSENSE", "is no option of slipway-registry"),
    ],
)
def test_unknown_variables_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UsageError, match=variable) as caught:
        load(Example, {})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "SLIPWAY_RUNNER_LISTEN",
        "SLIPWAY_RUNNER",
        "SLIPWAY_REGISTRY",
        "SLIPWAY_HF_TOKEN",
        "SLIPWAY_CONFIG",
        "SLIPWAY_REGISTRY_INSTANCE",
    ],
)
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:1")
    load(Example, {})
    assert Example.prefix() in PROGRAMS


def test_unknown_keys_of_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"slipway\.toml: timeuot is no option of slipway-registry; did you mean timeout"
    ):
        load(Example, {}, toml(tmp_path, "timeuot = 1\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("slots = \n", "Invalid value"), ("slots = 0\n", "slots: .*greater than")],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "slipway.toml" if text is None else toml(tmp_path, text)
    with pytest.raises(UsageError, match=rf"^{path}: {said}"):
        load(Example, {}, path)


def test_a_wrong_value_is_named_by_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^--timeout: 'soon' is not like"):
        load(Example, {"timeout": "soon"})
    monkeypatch.setenv("SLIPWAY_REGISTRY_SLOTS", "many")
    with pytest.raises(UsageError, match=r"^SLIPWAY_REGISTRY_SLOTS: Input should be a valid integer"):
        load(Example, {})


@pytest.mark.parametrize("field", ["listen", "metrics_listen"])
def test_beyond_loopback_is_refused_unless_insecure(field: str) -> None:
    with pytest.raises(UsageError, match=r"^--[a-z-]+: 0\.0\.0\.0:5 can be reached from other hosts.*--insecure"):
        load(Example, {field: "0.0.0.0:5"})
    assert load(Example, {field: "0.0.0.0:5", "insecure": True}).insecure


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTRY_SLOTS", "many")
    monkeypatch.setenv("SLIPWAY_REGISTRY_TIMEUOT", "1s")
    path = toml(tmp_path, 'quotta = 1\ntimeout = "soon"\n')
    with pytest.raises(UsageError) as caught:
        load(Example, {"listen": "0.0.0.0:5", "metrics_listen": "nowhere", "log_level": "loud"}, path)
    said = list(caught.value.args)
    for part in (
        "SLIPWAY_REGISTRY_TIMEUOT is no option of slipway-registry; did you mean SLIPWAY_REGISTRY_TIMEOUT?",
        f"{path}: quotta is no option of slipway-registry; did you mean quota?",
        f"{path}: timeout: 'soon' is not like",
        "SLIPWAY_REGISTRY_SLOTS: Input should be a valid integer",
        "--listen: 0.0.0.0:5 can be reached from other hosts",
        "--metrics-listen: 'nowhere' is not HOST:PORT",
        "--log-level: Input should be 'debug'",
    ):
        assert [line for line in said if line.startswith(part)], (part, said)
    assert len(said) == 7
    assert str(caught.value).splitlines() == said


def test_each_thing_that_is_wrong_is_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["slipway-registry", "--timeout", "soon", "--slots", "0"])
    with pytest.raises(SystemExit):
        main(program([]), name="slipway-registry")
    assert [line.split(":")[:2] for line in capsys.readouterr().err.splitlines()] == [
        ["slipway-registry", " --timeout"],
        ["slipway-registry", " --slots"],
    ]


@pytest.mark.parametrize(("listen", "exposed"), [("0.0.0.0:5", ["--listen"]), ("127.0.0.1:5", [])])
def test_what_other_hosts_may_reach_is_known(listen: str, exposed: list[str]) -> None:
    settings = load(Example, {"listen": listen, "insecure": True})
    assert [name for name, _ in settings.exposed] == exposed


def test_the_table_has_every_option() -> None:
    table = {option.field: option for option in options(Example)}
    assert set(table) == {"config", *Example.model_fields}
    assert (table["timeout"].flag, table["timeout"].variable) == ("--timeout", "SLIPWAY_REGISTRY_TIMEOUT")
    assert {
        name: (table[name].type, table[name].default)
        for name in ("timeout", "quota", "roots", "limits", "slots", "log_format", "insecure", "listen")
    } == {
        "timeout": ("DURATION", "90s"),
        "quota": ("SIZE", "none"),
        "roots": ("PATH", "none"),
        "limits": ("SIZE", "1024"),
        "slots": ("NUMBER", "4"),
        "log_format": ("json|console", "console"),
        "insecure": ("", "off"),
        "listen": ("HOST:PORT", "127.0.0.1:1"),
    }


def test_the_table_as_markdown() -> None:
    lines = markdown(Example).splitlines()
    assert len(lines) == 2 + len(options(Example))
    assert "| `--timeout` | `SLIPWAY_REGISTRY_TIMEOUT` | `DURATION` | `90s` | How long. |" in lines
    assert all(line.count("|") - line.count("\\|") == 6 for line in lines)


def test_an_option_without_a_description_is_refused() -> None:
    class Silent(Settings):
        level: int = 1

    with pytest.raises(TypeError, match="needs a description"):
        options(Silent)


def program(ran: list[Example]) -> click.Command:
    return command(Example, ran.append, name="serve", help="Serve.")


def test_help_prints_the_table() -> None:
    text = " ".join(CliRunner().invoke(program([]), ["--help"]).output.split())
    for option in options(Example):
        assert option.flag in text
        assert f"[{option.variable}, default: {option.default}]" in text
        assert option.meaning in text


def test_the_command_line_runs_with_what_it_gave(tmp_path: Path) -> None:
    ran: list[Example] = []
    arguments = [
        "--timeout",
        "5m",
        "--roots",
        "/a",
        "--roots",
        "/b",
        "--insecure",
        "--config",
        str(toml(tmp_path, "slots = 9")),
    ]
    assert CliRunner().invoke(program(ran), arguments, standalone_mode=False).exception is None
    (settings,) = ran
    assert (settings.timeout, settings.roots, settings.insecure, settings.slots) == (
        300,
        (Path("/a"), Path("/b")),
        True,
        9,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "No such option '--bogus'"),
        (["--timeout"], "Option '--timeout' requires an argument"),
        (["--timeout", "soon"], "--timeout: 'soon' is not like"),
        (["extra"], "Got unexpected extra argument"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["slipway-registry", *arguments])
    with pytest.raises(SystemExit) as caught:
        main(program([]), name="slipway-registry")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("slipway-registry: ")
    assert said in line


@pytest.mark.parametrize("settings", [RegistrySettings, RunnerSettings])
def test_a_program_tells_its_version(settings: type[Settings]) -> None:
    told = CliRunner().invoke(group(settings, help="A program."), ["--version"])
    assert told.output == f"{settings.program} {version(settings.program)}\n"


def test_a_program_that_ends_as_it_should_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr("sys.argv", ["slipway-registry"])
    with pytest.raises(SystemExit) as caught:
        main(program(ran), name="slipway-registry")
    assert (caught.value.code, len(ran)) == (0, 1)
