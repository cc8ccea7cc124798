"""A server of the operator's own, described in a file: loaded, watched, asked through the gateway, and gone."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from slipway.runner.v1.model_pb2 import Model, ModelState
from slipway_client import Runner
from slipway_client.errors import SlipwayError
from slipway_client.events import Changed, Progressed
from slipway_client.specs import model_spec

from tests.e2e.stack import WAIT_SECONDS, Service

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).with_name("step_server.py")
COMMANDS = f"""
[steps]
program = "{sys.executable}"
arguments = ["-S", "-E", "{SERVER}", "{{port}}", "{{name}}", "{{model}}"]
environment = {{ OWN = "at {{scratch}}; $(id) `id` | tee {{name}}" }}
api_key_variable = "STEP_KEY"
formats = ["gguf"]
stop_timeout = "2s"
[steps.paths]
"/v1/embeddings" = "/own/embed"
[[steps.failures]]
pattern = 'cannot map weights'
reason = "MODEL_FILE_INVALID"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the model lies."""
    path = tmp_path / "models" / "m"
    path.mkdir(parents=True)
    (path / "m.gguf").write_bytes(b"GGUF" + bytes(1000))
    return path


@pytest.fixture
def service(tmp_path: Path, folder: Path) -> Iterator[Service]:
    commands = tmp_path / "commands.toml"
    commands.write_text(COMMANDS)
    options = (
        *(f"--{what}listen=127.0.0.1:0" for what in ("", "metrics-", "gateway-")),
        *("--registry=127.0.0.1:9", f"--model-roots={folder}", f"--commands={commands}"),
    )
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
    one = Service("runner", tmp_path / "runner", options, {**base, "HF_HOME": str(tmp_path / "hf")})
    one.start()
    yield one
    assert one.stop() == 0, one.log


def spec(folder: Path, **more: Any) -> Any:
    return model_spec(path=str(folder), backend="steps", task="embed", **more)


def asked(service: Service, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{service.addresses['gateway']}/v1/embeddings",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


async def test_each_shard_reaches_a_watcher_before_the_next_is_read(service: Service, folder: Path) -> None:
    async with Runner.connect(service.address) as runner:
        await runner.load_model(spec(folder))
        model = Model()
        with anyio.fail_after(WAIT_SECONDS):
            async with runner.watch_models(["m"], min_progress_interval=0.05) as watch:
                async for event in watch:
                    if isinstance(event, Progressed):
                        told = event.update.load_progress
                        if told.total_shards:
                            # The server stands still at this bar until it may go on.
                            assert told.total_shards == 4
                            (folder / f"go-{told.done_shards}").touch()
                    elif isinstance(event, Changed):
                        model = event.resource
                        if model.state == ModelState.MODEL_STATE_LOADED:
                            break
        assert (model.backend, model.commit) == ("steps", "")
        answer = await anyio.to_thread.run_sync(lambda: asked(service, model="m", input="x"))
        assert answer["path"] == "/own/embed"
        assert answer["asked"] == {"model": "m", "input": "x"}
        assert answer["argv"] == [str(model.port), "m", str(folder)]
        own = answer["environment"]
        assert own["OWN"].endswith("; $(id) `id` | tee m")  # no shell has seen it
        assert "AWS_SECRET" not in own
        async for _ in runner.unload("m"):
            pass


async def test_why_it_failed_is_as_described(service: Service, folder: Path) -> None:
    (folder / "broken").touch()
    async with Runner.connect(service.address) as runner:
        with pytest.raises(SlipwayError) as failed:
            async for _ in runner.load(spec(folder)):
                pass
        assert "cannot map weights: they are too thin" in str(failed.value)
        model = (await runner.get_model("m")).model
        assert model.state == ModelState.MODEL_STATE_ERROR
        assert model.error.message.startswith("MODEL_FILE_INVALID")
        assert model.exit.code == 3
        assert model.exit.last_lines == ["E: cannot map weights: they are too thin"]


async def test_who_loads_a_model_can_add_nothing_to_the_command(service: Service, folder: Path) -> None:
    async with Runner.connect(service.address) as runner:
        for more, reason in (
            ({"flags": {"port": "1"}}, "FLAG_NOT_ALLOWED"),
            ({"environment": {"LD_PRELOAD": "/tmp/x.so"}}, "ENVIRONMENT_NOT_ALLOWED"),
        ):
            with pytest.raises(SlipwayError) as refused:
                async for _ in runner.load(spec(folder, **more), model_id=f"m-{reason}"):
                    pass
            assert reason in str(refused.value)
        for model_id in ("--help", "a b", "$(id)", "../m"):
            with pytest.raises(SlipwayError) as refused:
                await runner.load_model(spec(folder), model_id=model_id)
            assert "INVALID_FIELDS" in str(refused.value)
        with pytest.raises(SlipwayError) as refused:
            await runner.load_model(model_spec(path=str(folder), backend="/bin/sh", task="embed"))
        assert "INVALID_FIELDS" in str(refused.value)


def test_a_file_that_describes_nothing_is_told_in_one_line(service: Service, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[x]\nprogram = 'x'\nshell = true\n")
    other = Service("runner", tmp_path / "other", (*service.arguments[:5], f"--commands={bad}"), service.environment)
    with pytest.raises(AssertionError, match="ended"):
        other.start()
    assert f"--commands: {bad}: x." in other.log
