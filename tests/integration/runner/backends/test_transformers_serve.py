"""The adapter of transformers serve on the real one; each start takes seconds, so each test does much."""

import http.client
import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

from slipway_runner.backends.base import Found, ModelFiles, Settings
from slipway_runner.backends.transformers_serve import FLAGS, TransformersServe
from slipway_runner.devices.device import DeviceKind
from slipway_runner.progress.signals import Bytes, LoadStage, Shards, Source
from slipway_service.fault import Reason

from tests.integration.runner.backends.carried_out import START_SECONDS, make_plan, model_files, running

BACKEND = TransformersServe()


def in_folder(folder: Path) -> ModelFiles:
    return model_files(*sorted(folder.glob("*.safetensors")), architecture="LlamaForCausalLM")


def test_four_shards_load_one_after_the_other_before_our_eyes(
    transformers: Found, models: Path, tmp_path: Path
) -> None:
    files = in_folder(models / "tiny-llama")
    plan = replace(make_plan(transformers, files, tmp_path), settings=Settings(dtype="float32", device=DeviceKind.CPU))
    with running(BACKEND, plan) as one:
        one.start()
        one.assert_went_forward()

        assert one.shards == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
        reported = [signal for signal in one.signals if isinstance(signal, Shards)]
        assert {signal.source for signal in reported} == {Source.REPORTED}
        assert {signal.current for signal in reported} == {"", *(path.name for path in files.weights)}
        assert [signal.done for signal in one.signals if isinstance(signal, Bytes)][-1] > 0

        loading = [progress for progress in one.progress if progress.stage is LoadStage.LOADING_WEIGHTS]
        assert "loading weights: 2 of 4 files, reading model-0" in " ".join(progress.detail for progress in loading)
        assert len({progress.fraction for progress in loading}) > 10
        assert (one.progress[-1].shards_done, one.progress[-1].bytes_done) == (4, one.progress[-1].bytes_total)

        status, body = one.answer(one.launch.question)
        assert (status, len(json.loads(body)["choices"])) == (200, 1)
        assert not list(Path(one.launch.env["HF_HOME"]).glob("hub/models--*"))  # nothing went into a cache

        # A client that stays in its stream keeps it from ending at SIGTERM; the ladder's SIGINT does end it.
        connection = http.client.HTTPConnection(one.launch.host, one.launch.port, timeout=30)
        wanted = {"model": one.launch.model_field, "prompt": "Hi", "max_tokens": 2000, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(wanted), {"Content-Type": "application/json"})
        assert connection.getresponse().read(16)
        code, _ = one.stop(2)
        connection.close()
    assert code == -15


def test_a_load_that_fails_is_told_while_the_server_lives(transformers: Found, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(models / "tiny-llama", folder)
    broken = sorted(folder.glob("*.safetensors"))[2]
    broken.write_bytes(broken.read_bytes()[:-1000])
    with running(BACKEND, make_plan(transformers, in_folder(folder), tmp_path / "scratch")) as one:
        one.load()
        assert one.causes[0].reason is Reason.MODEL_FILE_INVALID
        assert not one.exited(0)

        # A folder that does not say which model it holds
        (folder / "config.json").unlink()
        assert one.launch.load is not None
        told = [line for line in one.answer(one.launch.load)[1].decode().splitlines() if line.startswith("data:")]
        (cause,) = one.launch.reader.event(told[-1].removeprefix("data:"))
        assert getattr(cause, "reason", None) is Reason.MODEL_FILE_INVALID
        assert one.stop(1) == (-15, 1)


def test_why_it_does_not_start(transformers: Found, models: Path, tmp_path: Path) -> None:
    files = in_folder(models / "tiny-llama")
    with running(BACKEND, make_plan(transformers, files, tmp_path / "flag"), extra=("--no-such-option",)) as one:
        cause = one.fail()
    assert (cause.reason, "--no-such-option" in cause.text) == (Reason.BACKEND_FLAG_REJECTED, True)

    plan = make_plan(transformers, files, tmp_path / "port")
    with socket.create_server(("127.0.0.1", plan.port)), running(BACKEND, plan) as one:
        assert one.fail().reason is Reason.PORT_IN_USE


def test_every_allowed_option_is_known_to_it(transformers: Found, models: Path, tmp_path: Path) -> None:
    plan = make_plan(transformers, in_folder(models / "tiny-llama"), tmp_path)
    with running(BACKEND, plan, extra=("--help",)) as one:
        assert one.exited(START_SECONDS)
        said = one.said()
    # Its help is drawn to 80 columns: long names may be cut.
    assert [name for name in FLAGS if f"--{name}"[:24] not in said] == []
