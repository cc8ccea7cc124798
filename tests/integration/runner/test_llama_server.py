"""The life of models on the real llama-server."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from slipway_runner.backends.base import Host, Task
from slipway_runner.backends.host import run_program
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.select import find_all
from slipway_runner.devices.inventory import Devices
from slipway_runner.models.fleet import Fleet, open_fleet
from slipway_runner.models.means import Numbers
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Model
from slipway_runner.models.snapshots import LocalPaths
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.process import pidfd, proc
from slipway_runner.progress.signals import LoadStage
from slipway_service.fault import Fault, Reason

from tests.hub.models.demo import demo_models
from tests.integration.runner.fakes import Seen, running

pytestmark = pytest.mark.anyio

NUMBERS = Numbers(first_delay=0.05, probe=1.0, probe_doubt=0.1)


@pytest.fixture(scope="module")
def backends() -> Backends:
    """Must be there: `make backends` has built it, or it is on PATH."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    host = Host(
        search_path=tuple(map(Path, os.get_exec_path())), run=run_program, installed=cache / "slipway" / "backends"
    )
    found = Backends(adapters=(LlamaServer(),), found=find_all((LlamaServer(),), host))
    assert not found.unusable, found.unusable
    return found


@pytest.fixture(scope="module")
def models() -> Path:
    return demo_models()


@dataclass
class Real:
    fleet: Fleet
    seen: Seen

    async def load(self, path: Path, model_id: str = "m", **more: Any) -> Model:
        await self.fleet.load(replace(Spec(source=PathSource(path=path)), **more), model_id)
        return await self.seen.state(State.LOADED, State.ERROR, model_id=model_id)


@asynccontextmanager
async def real(root: Path, backends: Backends, *roots: Path, stop: bool = True) -> AsyncIterator[Real]:
    seen = Seen()
    async with open_fleet(
        state_dir=root / "state",
        backends=backends,
        sink=seen,
        devices=lambda: Devices().look().all,
        numbers=NUMBERS,
        paths=LocalPaths(roots),
    ) as fleet:
        try:
            yield Real(fleet, seen)
        finally:
            if stop:
                with anyio.CancelScope(shield=True):
                    await fleet.shutdown()


async def ask(model: Model, path: str, **body: Any) -> Mapping[str, Any]:
    headers = {"Authorization": f"Bearer {model.api_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{model.port}{path}", json={"model": model.served_name, **body}, headers=headers
        ) as response,
    ):
        assert response.status == 200, await response.text()
        document: Mapping[str, Any] = await response.json()
        return document


async def chat(model: Model) -> str:
    answer = await ask(model, "/v1/chat/completions", messages=[{"role": "user", "content": "hello"}], max_tokens=8)
    return str(answer["choices"][0]["message"]["content"])


async def test_it_loads_answers_with_its_key_and_is_gone(tmp_path: Path, models: Path, backends: Backends) -> None:
    folder = models / "tiny-chat-GGUF"
    async with real(tmp_path, backends, models) as on:
        model = await on.load(folder)
        assert model.state is State.LOADED, model.error
        assert (model.variant, model.task, model.backend) == ("Q4_K_M", Task.GENERATE, "llama-server")
        assert model.backend_version
        assert model.settings_in_force["context_length"]
        assert await chat(model)
        stages = [told.stage for told in on.seen.told]
        assert stages[0] is LoadStage.QUEUED
        assert LoadStage.STARTING in stages
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{model.port}/slots") as refused:
            assert refused.status == 401
        on.fleet.unload("m")
        await on.seen.until(lambda: bool(on.seen.gone))
        assert not running(model.pid)


async def test_a_split_model_is_loaded_by_any_of_its_parts(tmp_path: Path, models: Path, backends: Backends) -> None:
    parts = sorted((models / "tiny-chat-GGUF").glob("*F32*-of-*.gguf"))
    async with real(tmp_path, backends, models) as on:
        model = await on.load(parts[1])
        assert model.state is State.LOADED, model.error
        assert model.model_path == str(parts[0])
        assert await chat(model)


async def test_a_missing_part_is_told_before_anything_starts(tmp_path: Path, models: Path, backends: Backends) -> None:
    first, _, third = sorted((models / "tiny-chat-GGUF").glob("*F32*-of-*.gguf"))
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(first, folder)
    shutil.copy(third, folder)
    async with real(tmp_path, backends, folder) as on:
        with pytest.raises(Fault) as refused:
            await on.load(folder)
        assert refused.value.reason is Reason.MODEL_FILE_MISSING
        assert "00002-of-00003" in refused.value.text


async def test_a_cut_off_file_is_an_error_with_the_backends_words(
    tmp_path: Path, models: Path, backends: Backends
) -> None:
    whole = next((models / "tiny-chat-GGUF").glob("*Q8_0.gguf"))
    folder = tmp_path / "models"
    folder.mkdir()
    cut = folder / "cut-Q8_0.gguf"
    cut.write_bytes(whole.read_bytes()[:-100_000])
    async with real(tmp_path, backends, folder) as on:
        model = await on.load(cut)
        assert model.state is State.ERROR
        assert model.error is not None
        assert model.error.reason is Reason.MODEL_FILE_INVALID
        assert model.exit is not None
        assert model.exit.code == 1
        assert any("exiting due to model loading error" in line for line in model.exit.last_lines)


@pytest.mark.parametrize(("name", "task"), [("tiny-embed-GGUF", Task.EMBED), ("tiny-rerank-GGUF", Task.RERANK)])
async def test_embedders_and_rerankers_are_known_by_their_headers(
    tmp_path: Path, models: Path, backends: Backends, name: str, task: Task
) -> None:
    async with real(tmp_path, backends, tmp_path) as on:
        file = next((models / name).glob("*.gguf"))
        plain = tmp_path / "plain.gguf"  # a name that says nothing
        shutil.copy(file, plain)
        model = await on.load(plain)
        assert model.state is State.LOADED, model.error
        assert model.task is task
        if task is Task.EMBED:
            answer = await ask(model, "/v1/embeddings", input="hello")
            assert len(answer["data"][0]["embedding"]) == 128
        else:
            answer = await ask(model, "/v1/rerank", query="hello", documents=["one", "two"])
            assert len(answer["results"]) == 2


async def test_a_killed_one_is_started_again(tmp_path: Path, models: Path, backends: Backends) -> None:
    async with real(tmp_path, backends, models) as on:
        model = await on.load(models / "nano-chat-GGUF")
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        again = await on.seen.state(State.LOADED)
        assert again.uid == model.uid
        assert await chat(again)


async def test_a_frozen_one_is_unhealthy_until_it_thaws(tmp_path: Path, models: Path, backends: Backends) -> None:
    async with real(tmp_path, backends, models) as on:
        model = await on.load(models / "nano-chat-GGUF")
        os.kill(model.pid, signal.SIGSTOP)
        assert (await on.seen.state(State.UNHEALTHY)).pid == model.pid
        os.kill(model.pid, signal.SIGCONT)
        assert (await on.seen.state(State.LOADED)).pid == model.pid


async def test_an_unload_does_not_wait_for_a_client_that_streams(
    tmp_path: Path, models: Path, backends: Backends
) -> None:
    async with real(tmp_path, backends, models) as on:
        model = await on.load(models / "tiny-chat-GGUF", flags={"context-shift": ""})
        headers = {"Authorization": f"Bearer {model.api_key}"}
        body = {"prompt": "hello", "stream": True, "n_predict": -1, "ignore_eos": True}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{model.port}/completion", json=body, headers=headers) as response,
        ):
            while not (line := await response.content.readline()).startswith(b"data:"):
                assert line  # comments keep the connection alive until the first token is there
            on.fleet.unload("m", drain_seconds=0)
            await on.seen.until(lambda: bool(on.seen.gone))


@pytest.mark.usefixtures("patient_adoption")
async def test_it_serves_on_while_the_runner_is_replaced(tmp_path: Path, models: Path, backends: Backends) -> None:
    async with real(tmp_path, backends, models, stop=False) as on:
        before = await on.load(models / "nano-chat-GGUF")
        assert await chat(before)
    assert await chat(before)
    async with real(tmp_path, backends, models) as on:
        after = on.fleet.get("m")
        assert (after.state, after.uid, after.pid) == (State.LOADED, before.uid, before.pid)
        assert await chat(after)
        found = proc.stat(after.pid)
        assert found is not None
        on.fleet.unload("m")
        await pidfd.exited(found.id)


async def test_its_log_is_kept_and_tells_of_every_start(tmp_path: Path, models: Path, backends: Backends) -> None:
    async with real(tmp_path, backends, models) as on:
        model = await on.load(models / "nano-chat-GGUF")
        log = on.fleet.log("m")
        await on.seen.until_true(lambda: b"listening on" in log.read(0).data)  # a thread of the backend's writes it
        first = log.size()
        os.kill(model.pid, signal.SIGKILL)
        await on.seen.state(State.RESTARTING)
        await on.seen.state(State.LOADED)
        await on.seen.until_true(lambda: b"listening on" in log.read(first).data)
        assert str(model.api_key) not in log.read(0).data.decode()
