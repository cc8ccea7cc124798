"""The adapter of vLLM on the real one, built for the CPU; a start takes half a minute, so a lane of its own."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from slipway_runner.backends.base import Found, LaunchPlan, Settings, Task
from slipway_runner.backends.vllm import Vllm
from slipway_runner.progress.signals import InForce, Shards
from slipway_service.fault import Reason

from tests.integration.runner.backends.carried_out import make_plan, model_files, running

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

BACKEND = Vllm()


def plan_for(found: Found, folder: Path, scratch: Path, task: Task = Task.GENERATE) -> LaunchPlan:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    files = model_files(*sorted(folder.glob("*.safetensors")), architecture=architecture)
    plan = make_plan(found, files, scratch, task)
    small = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    return replace(plan, settings=Settings(context_length=512), flags={"enforce-eager": ""}, environment=small)


def test_four_shards_load_and_its_engine_dies(vllm: Found, models: Path, tmp_path: Path) -> None:
    with running(BACKEND, plan_for(vllm, models / "tiny-llama", tmp_path)) as one:
        one.start()
        one.assert_went_forward()
        assert {signal.total for signal in one.signals if isinstance(signal, Shards)} == {4}
        assert one.shards[-1] == (4, 4)
        assert InForce({"context_length": "512"}) in one.signals
        assert one.launch.in_force
        assert one.launch.reader.in_force(one.answer(one.launch.in_force)[1]) == {"context_length": "512"}
        assert one.answer(replace(one.launch.question, headers={}))[0] == 401

        os.kill(engine_of(one.process.pid), signal.SIGKILL)
        cause = one.fail()
        assert one.process.returncode == 0  # and so an exit with 0 is one, too
    assert cause.reason is Reason.BACKEND_ENGINE_DEAD


def test_an_embedder_ends_when_told(vllm: Found, models: Path, tmp_path: Path) -> None:
    plan = plan_for(vllm, models / "tiny-embed", tmp_path, Task.EMBED)
    with running(BACKEND, replace(plan, settings=Settings())) as one:
        one.start()
        assert len(json.loads(one.answer(one.launch.question)[1])["data"]) == 1
        assert one.stop(1) == (0, 1)


def test_a_corrupt_shard(vllm: Found, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(models / "tiny-llama", folder)
    broken = sorted(folder.glob("*.safetensors"))[2]
    broken.write_bytes(broken.read_bytes()[:-1000])
    with running(BACKEND, plan_for(vllm, folder, tmp_path / "scratch")) as one:
        assert one.fail().reason is Reason.MODEL_FILE_INVALID


def engine_of(pid: int) -> int:
    """The child that calls itself EngineCore."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"EngineCore" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("it has no engine")
