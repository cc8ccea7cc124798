"""Backends from a TOML file."""

import re
import tomllib
from pathlib import Path

import pytest
from slipway_runner.backends.base import Task
from slipway_runner.backends.command import INFINITY, fill
from slipway_runner.backends.described import DescriptionError, read
from slipway_runner.devices.device import DeviceKind
from slipway_runner.progress.signals import Bytes, Cause, Fraction, LoadStage, Ready, Shards, Stage
from slipway_service.fault import Fault, Reason

from tests.unit.runner.backends.plans import found, gguf, plan, safetensors

PAGE = Path(__file__).parents[4] / "docs/backends.md"

LEAST = """
[own]
program = "own-server"
arguments = ["--port={port}", '{"model": "{name}"}']
formats = ["gguf"]
[own.paths]
"/v1/embeddings" = "/embed"
"""


def described(tmp_path: Path, text: str, *taken: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "commands.toml"
    path.write_text(text)
    return read(path, taken)


def examples() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_documentation_describes_the_preset_as_it_is(tmp_path: Path) -> None:
    *_, infinity = examples()
    assert described(tmp_path, infinity) == (INFINITY,)


def test_what_the_documentation_says_of_a_server_that_only_chats(tmp_path: Path) -> None:
    _, chat, _ = examples()
    text = LEAST.partition("[own.paths]")[0] + chat.replace("my-server", "own")
    (backend,) = described(tmp_path, text)
    launch = backend.launch(plan(found("own"), gguf()))
    assert launch.paths == {"/v1/chat/completions": "/v1/chat/completions"}
    assert (launch.question.path, b'"max_tokens": 1' in (launch.question.body or b"")) == ("/v1/chat/completions", True)
    with pytest.raises(DescriptionError, match="question: say which request"):
        described(tmp_path, text.partition("[own.question]")[0])


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    example, *_ = examples()
    (backend,) = described(tmp_path, example)
    launch = backend.launch(plan(found("my-server"), gguf()))
    root = "/hub/models--o--m/snapshots/0123"
    assert launch.argv == (
        "/opt/x/bin/server",
        "--weights",
        f"{root}/m-Q4_K_M.gguf",
        "--name",
        "m",
        "--bind",
        "127.0.0.1:18000",
    )
    assert launch.env["CACHE"] == "/var/lib/slipway/models/m/cache"
    assert launch.env["MY_SERVER_KEY"] == launch.api_key == "secret"
    assert (launch.liveness.path, launch.question.path) == ("/healthz", "/chat")
    assert b'"model": "m"' in (launch.question.body or b"")
    assert launch.question.headers["Authorization"] == "Bearer secret"
    assert launch.paths == {"/v1/chat/completions": "/chat"}
    assert backend.kinds == {DeviceKind.CPU, DeviceKind.CUDA}
    assert [step.wait_seconds for step in backend.stop_ladder] == [20.0, 20.0]
    assert backend.start_limits.stall_seconds == 120.0

    read_line = launch.reader.line
    assert read_line("1s: loaded 1 of 4 shards") == (Stage(LoadStage.LOADING_WEIGHTS), Shards(1, 4))
    assert read_line("warming up: 62.5 %") == (Stage(LoadStage.WARMING_UP), Fraction(LoadStage.WARMING_UP, 0.625))
    assert read_line("E: cannot map weights") == (Cause(Reason.MODEL_FILE_INVALID, "E: cannot map weights"),)
    assert read_line("Loading checkpoint shards:  25%|██▌       | 1/4 [00:01<00:03,  1.0it/s]") == (Shards(1, 4),)
    assert read_line("nothing of the kind") == ()


def test_what_is_left_out_is_as_usual(tmp_path: Path) -> None:
    (backend,) = described(tmp_path, LEAST)
    launch = backend.launch(plan(found("own"), gguf(), Task.EMBED))
    assert launch.argv[1:] == ("--port=18000", '{"model": "m"}')
    assert (launch.api_key, launch.liveness.path, launch.question.path) == (None, "/health", "/embed")
    assert backend.suits(found("own"), safetensors(), Task.EMBED, ()) == "own does not read safetensors"
    assert backend.suits(found("own"), gguf(), Task.GENERATE, ()) == "own has no endpoint to generate"


@pytest.mark.parametrize(
    ("more", "line", "signals"),
    [
        ('pattern = "(?P<done>\\\\d+)/(?P<total>\\\\d+)"\nunit = "bytes"', "7/9", (Bytes(7, 9),)),
        ('pattern = "(?P<done>\\\\d+)/(?P<total>\\\\d+)"\nunit = "steps"\nstage = "WARMING_UP"', "1/2", (0.5,)),
        ('pattern = "(?P<done>\\\\d+)/(?P<total>\\\\d+)"', "9/7", ()),
        ('pattern = "(?P<done>\\\\d+)/(?P<total>\\\\d+)"', "0/0", ()),
        ('pattern = "(?P<percent>\\\\d+)%"', "101%", ()),
        ('pattern = "(?P<percent>\\\\S+)%"', "many%", ()),
    ],
)
def test_what_a_line_says(tmp_path: Path, more: str, line: str, signals: tuple[object, ...]) -> None:
    (backend,) = described(tmp_path, f"{LEAST}\n[[own.progress]]\n{more}")
    stage, *rest = backend.launch(plan(found("own"), gguf(), Task.EMBED)).reader.line(line)
    assert isinstance(stage, Stage)
    assert [one.value if isinstance(one, Fraction) else type(one) for one in rest] == [
        one if isinstance(one, float) else type(one) for one in signals
    ]


def test_a_server_may_say_that_it_is_ready(tmp_path: Path) -> None:
    (backend,) = described(tmp_path, f"{LEAST}\n[[own.progress]]\npattern = 'serving'\nready = true")
    assert backend.launch(plan(found("own"), gguf(), Task.EMBED)).reader.line("serving now") == (Ready(),)


@pytest.mark.parametrize(("word", "shown"), [("{file}", "m-Q4_K_M.gguf"), ("{model}", "."), ("--preset", ".")])
def test_what_it_was_given_is_the_file_only_where_its_command_says_so(tmp_path: Path, word: str, shown: str) -> None:
    (backend,) = described(tmp_path, LEAST.replace('"--port={port}"', f'"--port={{port}}", "--of={word}"'))
    files = gguf()
    assert backend.launch(plan(found("own"), files, Task.EMBED)).model_path == files.root / shown


def test_callers_add_nothing_to_the_command(tmp_path: Path) -> None:
    (backend,) = described(tmp_path, LEAST)
    for changes, reason in (
        ({"flags": {"port": "1"}}, Reason.FLAG_NOT_ALLOWED),
        ({"environment": {"PATH": "/tmp"}}, Reason.ENVIRONMENT_NOT_ALLOWED),
        ({"environment": {"PYTHONPATH": "/tmp"}}, Reason.ENVIRONMENT_NOT_ALLOWED),
    ):
        with pytest.raises(Fault) as refused:
            backend.launch(plan(found("own"), gguf(), Task.EMBED, **changes))
        assert refused.value.reason is reason


def test_what_was_filled_in_is_not_filled_in_again() -> None:
    assert fill("{name}/{file}/{other}", {"name": "{file}", "file": "f"}) == "{file}/f/{other}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[own", "Expected ']'"),
        ("own = 1", "own: "),
        ("['own server']\nprogram = 'x'", "own server: must be 1-128 letters"),
        ("[vllm]\nprogram = 'x'", "vllm: there is a backend of that name"),
        (LEAST.replace("{port}", "{prot}"), r"own.arguments.0: there is no placeholder {prot}; there are {device}"),
        (LEAST.replace('"gguf"', '"zip"'), "own.formats.0: "),
        (LEAST.replace("own-server", "bin/server"), "own.program: 'bin/server' is neither"),
        (LEAST.replace('"/embed"', '"embed"'), "own.paths./v1/embeddings: 'embed' is no path"),
        (LEAST.replace("/v1/embeddings", "/v1/files"), "own: paths: the gateway has no /v1/files"),
        (LEAST.replace("/v1/embeddings", "/v1/chat/completions"), "own: question: say which request"),
        (LEAST.replace("formats", "format"), "own.formats: Field required"),
        (f"{LEAST}\n[[own.progress]]\npattern = '('", "own.progress.0.pattern: "),
        (f"{LEAST}\n[[own.failures]]\npattern = 'x'\nreason = 'BROKEN'", "own.failures.0.reason: "),
        (f"{LEAST}\n[own.environment]\n'A=B' = 'x'", "own.environment.A=B"),
        (f'{LEAST}"/v1/rerank" = "/rerank"\n[own.question]\npath = "/x"\nbody = {{}}', "own: question: it is for one"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DescriptionError) as refused:
        described(tmp_path, text, "vllm")
    told = str(refused.value)
    assert told.startswith(f"{tmp_path}/commands.toml: ")
    assert why in told
    assert "\n" not in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"none\.toml: No such file"):
        read(tmp_path / "none.toml", ())


def test_examples_are_toml() -> None:
    assert [set(tomllib.loads(example)) for example in examples()] == [{"my-server"}, {"my-server"}, {"infinity"}]
