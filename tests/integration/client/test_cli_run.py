"""`slipway load`, `unload`, `activate`, `ps` and `logs`, against fakes of both services."""

import re

import grpc
import pytest
from slipway.common.v1.task_pb2 import Task
from slipway.runner.v1.model_pb2 import (
    BackendSettings,
    ModelSpec,
    RepoSource,
)
from slipway.runner.v1.model_service_pb2 import (
    ListModelsResponse,
    LoadModelResponse,
    ReadModelLogsResponse,
    SetActiveModelResponse,
    UnloadModelResponse,
)

from tests.integration.client.command import slipway
from tests.integration.client.fakes import Failure, FakeService, serving
from tests.integration.client.resources import at, loading, model

pytestmark = pytest.mark.anyio


async def test_load_tells_each_stage_and_shard() -> None:
    fake = loading(
        model("LOADING", "FETCHING", done_bytes=1, total_bytes=2_000_000_000),
        model("LOADING", "FETCHING", done_bytes=2_000_000_000, total_bytes=2_000_000_000),
        model("LOADING", "STARTING"),
        model("LOADING", "LOADING_WEIGHTS", done_shards=0, total_shards=2),
        model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2, done_bytes=1, total_bytes=2_000_000_000),
        model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2, done_bytes=5, total_bytes=2_000_000_000),
        model("LOADING", "LOADING_WEIGHTS", done_shards=2, total_shards=2),
        model("LOADING", "WARMING_UP"),
        model("LOADED"),
    )
    async with serving(fake):
        ended = await slipway(
            fake, "load", "org/m@v1", "--id", "m", "--backend", "llama-server", "--task", "generate", "--evict"
        )
    *lines, loaded, endpoint, hint = ended.lines
    assert lines == [
        "m  org/m@1a2b3c4 · Q4_K_M · llama-server",
        "waiting for a slot or memory",
        "downloading: 2.0 GB",
        "starting llama-server",
        "loading weights: shard 0/2",
        "loading weights: shard 1/2",
        "loading weights: shard 2/2",
        "warming up",
    ]
    assert re.fullmatch(r"✓ loaded in \d.*, active for generate", loaded)
    assert endpoint == '  POST http://gpu1:8800/v1/chat/completions with "model": "m"'
    assert hint == '  slipway chat m "Hello"'
    [request] = fake.requests("LoadModel")
    assert request.spec == ModelSpec(
        repo=RepoSource(repo_id="org/m", revision="v1"), backend="llama-server", task=Task.TASK_GENERATE
    )
    assert (request.id, request.evict) == ("m", True)


async def test_a_load_that_comes_and_goes_with_requests() -> None:
    fake = FakeService({"LoadModel": LoadModelResponse(model=model("LOADING", "QUEUED"))})
    async with serving(fake):
        await slipway(fake, "load", "org/m", "--idle-ttl", "30m", "--on-demand", "--detach")
        wrong = await slipway(fake, "load", "org/m", "--idle-ttl", "soon")
    [request] = fake.requests("LoadModel")
    assert (request.spec.idle_ttl.seconds, request.spec.load_on_demand) == (1800, True)
    assert wrong.code == 2
    assert "'soon' is not a duration" in wrong.err


async def test_a_load_that_takes_over_with_settings_of_its_own() -> None:
    fake = FakeService({"LoadModel": LoadModelResponse(model=model("LOADING", "QUEUED"))})
    async with serving(fake):
        more = (
            "--context",
            "8192",
            "--flag",
            "ubatch-size=256",
            "--flag",
            "mlock",
            "--alias",
            "x",
            "--alias",
            "y",
        )
        await slipway(fake, "load", "org/m", *more, "--replaces", "old", "--unload-first", "--detach")
        nobody = await slipway(fake, "load", "org/m", "--unload-first")
    [request] = fake.requests("LoadModel")
    assert request.spec == ModelSpec(
        repo=RepoSource(repo_id="org/m"),
        settings=BackendSettings(context_length=8192),
        flags={"ubatch-size": "256", "mlock": ""},
        aliases=["x", "y"],
    )
    assert (request.replaces, request.unload_first) == ("models/old", True)
    assert nobody.code == 2
    assert "--unload-first needs --replaces ID" in nobody.err


async def test_load_of_a_path_and_of_what_is_loaded() -> None:
    there = model("LOADED")
    there.spec.task = Task.TASK_EMBED
    fake = FakeService({"LoadModel": LoadModelResponse(model=there, existing=True, evicted=["models/old"])})
    async with serving(fake):
        ended = await slipway(fake, "load", "/models/m.gguf")
    assert ended.lines[1:] == [
        "  old is unloaded to make room",
        "✓ it was loaded already, active for generate",
        '  POST http://gpu1:8800/v1/embeddings with "model": "m"',
    ]
    assert fake.requests("LoadModel")[0].spec == ModelSpec(path="/models/m.gguf")


async def test_load_that_fails() -> None:
    failed = model("ERROR")
    failed.error.CopyFrom(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "9 GB, 6 GB free", "OUT_OF_MEMORY").status())
    fake = loading(failed)
    async with serving(fake):
        ended = await slipway(fake, "load", "org/m")
    assert (ended.code, ended.err) == (6, "OUT_OF_MEMORY: 9 GB, 6 GB free\n")


async def test_load_as_json() -> None:
    fake = loading(model("LOADING", "LOADING_WEIGHTS", done_shards=1, total_shards=2), model("LOADED"))
    async with serving(fake):
        ended = await slipway(fake, "--json", "load", "org/m")
        detached = await slipway(fake, "--json", "load", "org/m", "--detach")
    assert [(one["state"], one["loadProgress"]["doneShards"]) for one in ended.documents] == [
        ("MODEL_STATE_LOADING", 0),
        ("MODEL_STATE_LOADING", 1),
        ("MODEL_STATE_LOADED", 0),
    ]
    assert detached.documents == ended.documents[:1]


async def test_unload_waits() -> None:
    fake = loading(model("UNLOADING"), model("UNLOADED"))
    fake.answers["UnloadModel"] = UnloadModelResponse(model=model("UNLOADING"), cursor=at(1))
    async with serving(fake):
        ended = await slipway(fake, "unload", "m")
        assert (await slipway(fake, "unload", "m", "--detach")).out.startswith("m UNLOADING org/m@1a2b3c4")
    assert ended.lines[0] == "unloading"
    assert re.match(r"✓ m is gone after \d", ended.lines[1])


async def test_activate() -> None:
    answer = SetActiveModelResponse(model=model("LOADED"), previous="models/old")
    fake = FakeService({"SetActiveModel": answer})
    async with serving(fake):
        ended = await slipway(fake, "activate", "m", "--task", "generate")
        assert (await slipway(fake, "activate", "m", "--json")).documents[0]["previous"] == "models/old"
    assert ended.out == "✓ m is active for generate instead of old\n"
    assert fake.requests("SetActiveModel")[0].task == Task.TASK_GENERATE


async def test_ps() -> None:
    half = model("LOADING", "LOADING_WEIGHTS", done_shards=2, total_shards=4, fraction=0.43)
    half.planned_bytes = 5_000_000_000
    fake = FakeService({"ListModels": ListModelsResponse(models=[model("LOADED"), half])})
    async with serving(fake):
        ended = await slipway(fake, "ps")
        fake.answers["ListModels"] = ListModelsResponse()
        assert (await slipway(fake, "ps")).out == "no models; `slipway load REPO` loads one\n"
    assert ended.lines == [
        "ID  STATE        ACTIVE FOR  BACKEND       MODEL                   MEMORY  SINCE",
        "m   LOADED       generate    llama-server  org/m@1a2b3c4 · Q4_K_M",
        "m   LOADING 43%              llama-server  org/m@1a2b3c4 · Q4_K_M  5.0 GB         shard 2/4",
    ]


async def test_ps_tells_no_memory_of_what_holds_none() -> None:
    failed = model("ERROR")
    failed.planned_bytes = 5_000_000_000
    fake = FakeService({"ListModels": ListModelsResponse(models=[failed])})
    async with serving(fake):
        ended = await slipway(fake, "ps")
    assert "ERROR" in ended.lines[1]
    assert "GB" not in ended.out


async def test_logs() -> None:
    pieces = [ReadModelLogsResponse(text="one\ntw", next_offset=6), ReadModelLogsResponse(text="o\n", offset=6)]
    fake = FakeService(streams={"ReadModelLogs": [pieces, pieces]})
    async with serving(fake):
        ended = await slipway(fake, "logs", "m", "--follow")
        as_json = await slipway(fake, "logs", "m", "--json")
    assert ended.out == "one\ntwo\n"
    assert [document["text"] for document in as_json.documents] == ["one\ntw", "o\n"]
    assert [request.follow for request in fake.requests("ReadModelLogs")] == [True, False]
