"""What an image build gets."""

from pathlib import Path

import pytest
from slipway.registry.v1.selection_pb2 import Selection
from slipway_registry.transfer.frontier import Frontier
from slipway_registry.transfer.partial import FRONTIER
from slipway_service.weights.cache_paths import RepoPaths

from tests.e2e.stack import wait_for
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import StallAfter
from tests.hub.repos import Repo
from tests.integration.hub.backends import program
from tests.integration.hub.clients import Native, run
from tests.integration.registry import native_reads
from tests.integration.registry.preload.program import Build
from tests.integration.registry.snapshots.served import GGUFS, served
from tests.integration.registry.traffic import asked_for

MIB = 1 << 20
DATA = "/cdn/"


@pytest.fixture
def embedder(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/embedder", {"config.json": b"{}", "model.safetensors": Random(3 * MIB)})


@pytest.fixture
def chat(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/chat-GGUF", GGUFS)


def test_several_at_once_and_the_summary(build: Build, embedder: Repo, chat: Repo) -> None:
    chat.tag("v1")
    done = build.preload("org/embedder", "org/chat-GGUF@v1")
    assert done.code == 0, done.err
    first, second = done.out.splitlines()
    assert first.split() == [
        "org/embedder",
        embedder.head.id,
        "3.1",
        "MB",
        str(build.paths("org/embedder").snapshots / embedder.head.id),
    ]
    assert second.split()[:2] == ["org/chat-GGUF@v1", chat.head.id]
    assert "Q4_K_M" in done.err, "what was chosen is said"
    assert (build.paths("org/chat-GGUF").refs / "v1").read_text() == chat.head.id


def test_a_document_for_each(build: Build, chat: Repo) -> None:
    done = build.preload("org/chat-GGUF", "--variant", "Q8_0", "--json")
    (said,) = done.documents
    path = Path(said.pop("path"))
    assert said == {
        "name": "org/chat-GGUF",
        "repo_id": "org/chat-GGUF",
        "revision": "main",
        "commit": chat.head.id,
        "variant": "Q8_0",
        "files": 3,
        "bytes": 2 + 7 + 128 * 1024,
        "fetched_bytes": 2 + 7 + 128 * 1024,
        "kept": False,
    }
    assert {it.name for it in path.iterdir()} == {"config.json", "README.md", "model-Q8_0.gguf"}


def test_named_targets_of_the_environment(build: Build, embedder: Repo, chat: Repo) -> None:
    done = build.preload(
        "--json",
        HF_PRELOAD_TARGETS="embedding,chat",
        HF_EMBEDDING_MODEL_ID="org/embedder",
        HF_EMBEDDING_FILES="*.json",
        HF_CHAT_MODEL_ID="org/chat-GGUF",
    )
    assert [(it["name"], it["files"]) for it in done.documents] == [("embedding", 1), ("chat", 3)]


def test_a_file_of_targets(build: Build, embedder: Repo, chat: Repo) -> None:
    file = build.directory / "models.toml"
    embedding = f'[embedding]\nmodel = "org/embedder"\nrevision = "{embedder.head.id}"\n'
    file.write_text(embedding + '[chat]\nmodel = "org/chat-GGUF"\nall = true\n')
    done = build.preload("--file", str(file), "--json")
    assert [(it["name"], it["files"]) for it in done.documents] == [("embedding", 2), ("chat", 4)]


def test_a_second_run_asks_next_to_nothing(hub: HubEmulator, build: Build, embedder: Repo, chat: Repo) -> None:
    build.preload("org/embedder", "org/chat-GGUF")
    hub.journal.clear()
    again = build.preload("org/embedder", "org/chat-GGUF", "--json")
    assert [it["fetched_bytes"] for it in again.documents] == [0, 0]
    assert "nothing to fetch" in again.err
    assert len(hub.journal.requests()) <= 4, "what the revision is now, and what it has, of each"
    hub.journal.clear()
    offline = build.preload("org/embedder", "org/chat-GGUF", "--json", HF_HUB_OFFLINE="1")
    assert [it["commit"] for it in offline.documents] == [embedder.head.id, chat.head.id]
    assert hub.journal.requests() == []


def test_what_another_tool_brought_is_hashed_and_not_fetched(hub: HubEmulator, build: Build, embedder: Repo) -> None:
    assert Native(hub.endpoint, build.home).hf("download", "org/embedder", HF_HUB_DISABLE_XET="1").returncode == 0
    hub.journal.clear()
    (said,) = build.preload("org/embedder", "--json").documents
    assert said["fetched_bytes"] == 0
    assert hub.journal.requests(DATA) == []


def test_offline_what_is_missing_is_said(hub: HubEmulator, build: Build, chat: Repo) -> None:
    build.preload("org/chat-GGUF")
    hub.journal.clear()
    done = build.preload("org/chat-GGUF", "--all", "--offline")
    assert done.code == 7
    assert "model-Q8_0.gguf" in done.err
    assert hub.journal.requests() == []


def test_all_is_usable_offline_by_huggingface_hub(build: Build, embedder: Repo) -> None:
    build.preload("org/embedder")
    native = Native("http://127.0.0.1:1", build.home)
    for revision in ("main", embedder.head.id):
        found = native.call(native_reads.offline, "org/embedder", revision, None, HF_HUB_OFFLINE="1")
        assert found == ["config.json", "model.safetensors"]
    scanned = native.call(native_reads.scan)
    assert scanned["warnings"] == []
    assert native.hf("cache", "prune", "--yes").returncode == 0
    assert native.call(native_reads.offline, "org/embedder", "main", None, HF_HUB_OFFLINE="1") == [
        "config.json",
        "model.safetensors",
    ]


TRANSFORMERS = """
from transformers import AutoConfig, AutoTokenizer
config = AutoConfig.from_pretrained("slipway-demo/tiny-embed")
print(config.model_type, *AutoTokenizer.from_pretrained("slipway-demo/tiny-embed").tokenize("fox"))
"""


def test_all_is_usable_offline_by_transformers(demo_hub: HubEmulator, tmp_path: Path) -> None:
    build = Build(directory=tmp_path, endpoint=demo_hub.endpoint)
    assert build.preload("slipway-demo/tiny-embed").code == 0
    environment = Native("http://127.0.0.1:1", build.home).environment(HF_HUB_OFFLINE="1")
    done = run([program("transformers", "python"), "-c", TRANSFORMERS], environment)
    assert done.stdout.split() == ["bert", "fox"], done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["state", "another"])
async def test_all_is_usable_offline_by_a_registry(hub: HubEmulator, build: Build, chat: Repo, state: str) -> None:
    """With the state directory of the build, or on the cache alone."""
    build.run("org/chat-GGUF")
    hub.journal.clear()
    options = {"offline": True, "state_dir": build.directory / state}
    async with served(build.directory, hub.endpoint, **options) as it:
        assert (await it.snapshot("org/chat-GGUF")).commit == chat.head.id
        pulled = await it.pull("org/chat-GGUF", Selection())
        assert pulled.commit == chat.head.id
    assert hub.journal.requests() == []


@pytest.mark.anyio
async def test_what_is_kept_is_neither_pruned_nor_deleted(hub: HubEmulator, build: Build, chat: Repo) -> None:
    before = chat.head.id
    assert build.run("org/chat-GGUF", "--keep", "--json").documents[0]["kept"]
    async with served(build.directory, hub.endpoint, cache_quota=1) as it:
        (pin,) = await it.client.list_pins()
        assert (pin.holder, pin.claim, pin.HasField("expire_time")) == ("preload", "org/chat-GGUF", False)
        assert not (await it.client.prune_cache()).items
    chat.commit({"config.json": b"{ }"})
    build.run("org/chat-GGUF", "--keep")
    async with served(build.directory, hub.endpoint, cache_quota=1) as it:
        (pin,) = await it.client.list_pins()
        assert pin.snapshot == (await it.snapshot("org/chat-GGUF", chat.head.id)).name, "the target has moved on"
        assert {item.commit for item in (await it.client.prune_cache()).items} == {before}


def recorded(paths: RepoPaths, size: int) -> int:
    """Bytes of a file that is on its way which a run that is killed now leaves to the next."""
    for file in paths.ingest.glob(f"*/{FRONTIER}"):
        with file.open("rb") as opened:
            frontier = Frontier.load(opened.fileno(), size)
            return frontier.done if frontier else 0
    return 0


def test_killed_and_run_again_it_goes_on(hub: HubEmulator, build: Build) -> None:
    size = 64 * MIB
    repo = hub.add_repo("org/large", {"model.safetensors": Random(size)})
    stall = hub.faults.add(StallAfter(2 * MIB), DATA)
    with build.running("org/large") as process:
        wait_for(lambda: recorded(build.paths("org/large"), size) >= 10 * MIB, "10 MiB")
        process.kill()
    hub.faults.remove(stall)
    hub.journal.clear()
    done = build.run("org/large", "--json")
    assert done.code == 0, done.err
    (said,) = done.documents
    assert said["fetched_bytes"] <= size - 10 * MIB
    assert (build.paths("org/large").snapshots / repo.head.id / "model.safetensors").stat().st_size == size
    assert asked_for(hub.journal, size) == said["fetched_bytes"]
