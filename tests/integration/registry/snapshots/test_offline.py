"""With the Hub unplugged, or not to be asked, everything that is cached is served."""

import json
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from huggingface_hub import snapshot_download
from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.registry.v1 import download_pb2
from slipway.registry.v1.repo_pb2 import Repo as RepoMessage

from tests.hub.content import Source
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status
from tests.hub.repos import Repo
from tests.integration.registry.network import unplugged
from tests.integration.registry.snapshots.served import PATIENCE, Q4, Q8, Served, reason_of, served
from tests.unit.service.weights.ggufs import write_gguf

pytestmark = pytest.mark.anyio

CARD = "---\nlicense: apache-2.0\npipeline_tag: text-generation\nlibrary_name: gguf\ntags: [chat, en]\n---\nread me\n"
DEVICES = [DeviceMemory(device_id="small", free_bytes=10_000), DeviceMemory(device_id="large", free_bytes=1 << 40)]


@pytest.fixture
def model(hub: HubEmulator, tmp_path: Path) -> Repo:
    """Two quantisations with real headers, in a folder, with a dot and a plus in their names."""
    files: Mapping[str, Source] = {
        "README.md": CARD,
        "config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
        "v1.5+x/m-Q4_K_M.gguf": write_gguf(tmp_path / "a.gguf"),
        "v1.5+x/m-Q8_0.gguf": write_gguf(tmp_path / "b.gguf", vocabulary=900),
    }
    repo = hub.add_repo("org/m", files, info={"gguf": {}}, pipeline_tag="text-generation", tags=["chat", "en"])
    repo.tag("v1")
    return repo


async def get_repo(it: Served, revision: str = "") -> RepoMessage:
    return await it.client.get_repo("org/m", revision, devices=DEVICES, context_tokens=1000)


def same_but_for(found: RepoMessage, **fields: object) -> RepoMessage:
    """A copy without what only the Hub can tell, with these fields."""
    copy = RepoMessage()
    copy.CopyFrom(found)
    for name in ("tags", "downloads", "likes", "trending_score", "create_time", "update_time", "gating", "parameters"):
        copy.summary.ClearField(name)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


async def test_offline_everything_cached_is_served_and_nobody_is_asked(
    hub: HubEmulator, model: Repo, tmp_path: Path
) -> None:
    (tmp_path / "export").mkdir()
    options = {"export_roots": [str(tmp_path / "export")]}
    async with served(tmp_path, hub.endpoint, **options) as it:
        await it.pull(model, Q4, revision="v1")
        await it.pull(model, Q4)
        online = await get_repo(it)
        files = await it.client.list_repo_files("org/m")
    hub.journal.clear()
    with unplugged() as attempts:
        async with served(tmp_path, hub.endpoint, offline=True, **options) as it:
            cached = await get_repo(it)
            assert (online.from_cache, cached.from_cache) == (False, True)
            assert str(same_but_for(cached)).splitlines() == str(same_but_for(online, from_cache=True)).splitlines()
            assert {"chat", "en"} <= set(cached.summary.tags) <= set(online.summary.tags)
            assert cached.license == "apache-2.0"
            assert [[fit.fits for fit in variant.fits] for variant in cached.variants] == [[False, True]] * 2
            assert all(variant.memory.kv_bytes_per_1k_tokens for variant in cached.variants)
            assert await it.client.list_repo_files("org/m") == files
            commit = model.head.id
            for revision in ("v1", commit, commit[:7], commit.upper()):
                assert (await get_repo(it, revision)).commit == commit
                snapshot = await it.snapshot(model, revision)
                assert (await it.client.pin_snapshot("org/m", revision, holder="h")).pin.snapshot == snapshot.name
                assert (await it.pull(model, Q4, revision)).commit == commit
            assert {answer.open_findings async for answer in it.client.verify_snapshot(snapshot.name)} == {0}
            exported = it.client.export_snapshot(snapshot.name, str(tmp_path / "export" / "m"), selection=Q4)
            assert [answer async for answer in exported][-1].file_count == 3
            imported = it.client.import_snapshot("org/m", str(tmp_path / "export" / "m"))
            assert [answer async for answer in imported][-1].snapshot.name == snapshot.name
            assert (await it.client.get_cache_usage()).snapshot_count == 1
            for pin in await it.client.list_pins():
                await it.client.unpin_snapshot(pin.name)
            assert (await it.client.prune_cache(unused_for=0.0)).freed_bytes > 0
    assert attempts == []
    assert hub.journal.requests() == []


async def test_offline_what_needs_the_hub_is_unavailable_and_says_why(
    hub: HubEmulator, model: Repo, tmp_path: Path
) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(model, Q4)
    hub.journal.clear()
    with unplugged() as attempts:
        async with served(tmp_path, hub.endpoint, offline=True) as it:
            for call in (
                it.client.search("m"),
                it.client.list_repo_refs("org/m"),
                it.client.get_repo("org/other"),
                it.client.get_repo("org/m", "dev"),
                it.client.list_repo_files("org/m", "dev"),
                it.client.create_download("org/m", "dev"),
            ):
                refused = await reason_of(call)
                assert (refused.reason, refused.code.name) == ("OFFLINE", "UNAVAILABLE")
                assert "--offline" in str(refused)
            lacking = await reason_of(it.client.create_download("org/m", selection=Q8))
            assert lacking.reason == "OFFLINE"
            assert "v1.5+x/m-Q8_0.gguf" in str(lacking)
            assert [found.state for found in await it.client.list_downloads()] == [
                download_pb2.DOWNLOAD_STATE_SUCCEEDED
            ]
    assert attempts == []
    assert hub.journal.requests() == []


async def test_while_the_hub_is_away_the_cache_answers(hub: HubEmulator, model: Repo, tmp_path: Path) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(model, Q4)
    hub.down("hub")
    async with served(tmp_path, hub.endpoint) as it:
        with anyio.fail_after(PATIENCE):
            found = await get_repo(it)
            assert (found.from_cache, found.commit) == (True, model.head.id)
            assert (await it.pull(model, Q4)).commit == model.head.id
            lacking = await reason_of(it.client.create_download("org/m", selection=Q8))
            assert (lacking.reason, lacking.retry_after) == ("HUB_UNREACHABLE", 30.0)
            assert (await reason_of(it.client.get_repo("org/other"))).reason == "HUB_UNREACHABLE"


@pytest.mark.parametrize(("status", "reason"), [(429, "HUB_RATE_LIMITED"), (404, "REPO_NOT_FOUND"), (503, "")])
async def test_what_the_hub_denies_or_rations_is_its_answer(
    hub: HubEmulator, model: Repo, tmp_path: Path, status: int, reason: str
) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(model, Q4)
        model.commit({"config.json": "{}"})
        hub.faults.add(Status(status, {"Retry-After": "1000"}), "/revision/|/tree/")
        call = it.client.get_repo("org/m", model.head.parent or "")
        if reason:
            assert (await reason_of(call)).reason == reason
        else:
            assert (await call).from_cache


async def test_a_cache_without_listings_tells_what_it_has(hub: HubEmulator, model: Repo, tmp_path: Path) -> None:
    """As huggingface_hub left it before it wrote them."""
    async with served(tmp_path, "http://127.0.0.1:1", offline=True) as it:
        wanted = ["*Q4*", "config.json"]
        await to_thread.run_sync(
            lambda: snapshot_download(
                "org/m", cache_dir=it.hub, endpoint=hub.endpoint, token=False, allow_patterns=wanted
            )
        )
        for listing in it.paths(model).trees.glob("*.json"):
            listing.unlink()
        found = await get_repo(it)
        assert [file.path for file in found.files] == ["config.json", "v1.5+x/m-Q4_K_M.gguf"]
        assert [variant.name for variant in found.variants] == ["Q4_K_M"]
        assert (found.license, found.config.context_length) == ("", 2048)
        assert (await reason_of(it.client.create_download("org/m", selection=Q4))).reason == "OFFLINE"
