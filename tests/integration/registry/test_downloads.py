"""Downloads from an emulated Hub into a cache, seen by those who asked for them."""

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import from_thread
from slipway_registry.cache.publish import Publisher
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.records import State, WaitReason
from slipway_registry.transfer.choice import Transport
from slipway_service.fault import Fault, Reason

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter, StallAfter
from tests.hub.files import FileSpec
from tests.integration.registry.engines import PATIENT, engine_in, request, sha256
from tests.integration.registry.traffic import sent

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SMALL = {"config.json": b"{}", "sub/dir/readme.txt": b"deep", "empty": b""}
BOTH = pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])


@BOTH
async def test_a_repository_arrives_whole(hub: HubEmulator, tmp_path: Path, transport: Transport) -> None:
    repo = hub.add_repo("org/m", {**SMALL, "model.safetensors": Random(30 * MIB)}, xet=True)
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert bench.told.states(done.id) == [State.QUEUED, State.RUNNING, State.VERIFYING, State.SUCCEEDED]
        snapshot = bench.snapshot(repo)
        for file in repo.head.files.values():
            assert sha256(snapshot / file.path) == file.blob.sha256
        size = sum(file.size for file in repo.head.files.values())
        assert (done.progress.done_bytes, done.progress.total_bytes) == (size, size)
        assert (done.progress.done_files, done.progress.total_files) == (4, 4)
    assert hub.journal.leaks() == []
    asked = {exchange.origin for exchange in hub.journal.requests("xorbs|cdn")}
    assert asked == ({"cdn"} if transport is Transport.HTTP else {"cas"})


async def test_only_the_selection_is_fetched(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {**SMALL, "model.gguf": Random(MIB)})
    async with engine_in(tmp_path, hub.endpoint) as bench:
        done = await bench.fetch(repo, paths=["config.json"])
        assert done.state is State.SUCCEEDED
        assert [path.name for path in bench.snapshot(repo).iterdir()] == ["config.json"]
    assert hub.journal.requests(origin="cdn") == []


async def test_the_second_time_nothing_is_asked(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {**SMALL, "model.gguf": Random(MIB)})
    async with engine_in(tmp_path, hub.endpoint) as bench:
        first = await bench.fetch(repo)
        hub.journal.clear()
        again = await bench.fetch(repo)
        assert again.id != first.id
        assert bench.told.states(again.id) == [State.SUCCEEDED]
        assert again.progress.cached_bytes == again.progress.total_bytes
    assert hub.journal.requests() == []


async def test_a_new_ref_of_what_is_there_costs_nothing(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    async with engine_in(tmp_path, hub.endpoint) as bench:
        await bench.fetch(repo)
        hub.journal.clear()
        await bench.fetch(repo, revision="v1")
        assert (bench.paths(repo).refs / "v1").read_text() == repo.head.id
    assert hub.journal.requests() == []


async def test_every_name_that_a_live_download_was_asked_for_by_becomes_a_ref(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(8 * MIB)})
    stall = hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, MIB)
        joined = await bench.create(repo, revision="v1")
        assert (joined.id, joined.revision) == (created.id, "main")
    hub.faults.remove(stall)
    async with engine_in(tmp_path, hub.endpoint) as bench:  # the name survives a restart
        await bench.create(repo, revision=repo.head.id)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        names = {path.name for path in bench.paths(repo).refs.iterdir()}
        assert names == {"main", "v1", "slipway"}


async def test_a_name_that_comes_while_it_is_published_becomes_a_ref_too(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", SMALL)
    publish, begun, go, over = Publisher.publish, anyio.Event(), threading.Event(), threading.Event()

    def held(*arguments: Any) -> None:
        late = begun.is_set()
        from_thread.run_sync(begun.set)
        assert (over if late else go).wait(30)
        publish(*arguments)

    async def not_yet(_: object) -> bool:
        return False

    async with engine_in(tmp_path, hub.endpoint) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(Publisher, "publish", held)
            created = await bench.create(repo, paths=["empty"])
            await begun.wait()
            patch.setattr(bench.scheduler, "_is_there", not_yet)  # what it saw a moment ago
            async with anyio.create_task_group() as tasks:

                async def join() -> None:
                    joined = await bench.create(repo, paths=["empty"], revision="v1")
                    assert joined == await bench.scheduler.get(created.id)
                    assert joined.log_revision == bench.told.log.log.cursor.revision

                tasks.start_soon(join)
                await anyio.wait_all_tasks_blocked()
                go.set()
                assert (await bench.told.end(created.id)).state is State.SUCCEEDED
                over.set()
        assert (bench.paths(repo).refs / "v1").read_text() == repo.head.id


async def test_the_same_request_joins_the_live_download(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(HoldAfter(), "config.json")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        first, new = await bench.scheduler.create(request(repo))
        again, new_again = await bench.scheduler.create(request(repo, paths=[*reversed(SMALL)]))
        other, new_other = await bench.scheduler.create(request(repo, paths=["empty"]))
        assert (new, new_again, new_other) == (True, False, True)
        assert again.id == first.id != other.id


async def test_a_blob_of_another_repository_is_linked(hub: HubEmulator, tmp_path: Path) -> None:
    source = Random(4 * MIB)
    one = hub.add_repo("org/one", {"model.gguf": source})
    two = hub.add_repo("org/two", {"renamed.gguf": source, "config.json": b"{}"})
    async with engine_in(tmp_path, hub.endpoint) as bench:
        await bench.fetch(one)
        hub.journal.clear()
        done = await bench.fetch(two)
        assert done.state is State.SUCCEEDED
        assert (bench.snapshot(two) / "renamed.gguf").samefile(bench.snapshot(one) / "model.gguf")
    assert hub.journal.requests(origin="cdn") == []


async def test_a_blob_that_two_downloads_need_is_fetched_once(hub: HubEmulator, tmp_path: Path) -> None:
    source = Random(8 * MIB)
    one = hub.add_repo("org/one", {"model.gguf": source, "a": b"a"})
    two = hub.add_repo("org/two", {"model.gguf": source})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = [await bench.create(one), await bench.create(one, paths=["model.gguf"]), await bench.create(two)]
        for download in created:
            assert (await bench.told.end(download.id)).state is State.SUCCEEDED
    assert sent(hub.journal) == 8 * MIB


async def test_files_with_the_same_content_are_fetched_once(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"a.gguf": Random(MIB), "b.gguf": Random(MIB)})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert (done.progress.total_bytes, done.progress.total_files, done.progress.done_files) == (MIB, 2, 2)
    assert sent(hub.journal) == MIB


async def test_what_others_put_there_is_hashed_before_it_is_trusted(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"good.gguf": Random(MIB, 1), "bad.gguf": Random(MIB, 2)})
    good, bad = repo.head.files["good.gguf"], repo.head.files["bad.gguf"]
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        blobs = bench.paths(repo).blobs
        blobs.mkdir(parents=True)
        (blobs / good.etag).write_bytes(good.blob.path.read_bytes())
        (blobs / bad.etag).write_bytes(bytes(MIB))
        done = await bench.fetch(repo)
        assert (done.state, done.mismatches) == (State.SUCCEEDED, 1)
        assert sha256(bench.snapshot(repo) / "bad.gguf") == bad.blob.sha256
    assert sent(hub.journal) == MIB


async def test_more_downloads_than_slots_wait_in_order(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {f"{number}.txt": str(number) for number in range(4)})
    hub.faults.add(hold := HoldAfter())
    queue = QueueSettings(jobs=2, progress_interval=0.05)
    async with engine_in(tmp_path, hub.endpoint, queue=queue, **PATIENT) as bench:
        created = [await bench.create(repo, paths=[f"{number}.txt"]) for number in range(4)]
        await bench.told.state(created[1].id, State.RUNNING)
        waiting = await bench.scheduler.get(created[2].id)
        assert (waiting.state, waiting.waiting_for) == (State.QUEUED, WaitReason.SLOT)
        for download in created[:2]:
            await bench.scheduler.cancel(download.id)
        hold.release()
        for download in created[2:]:
            assert (await bench.told.end(download.id)).state is State.SUCCEEDED


async def test_files_and_connections_have_their_caps(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {f"{number}.gguf": Random(32 * MIB, number) for number in range(4)})
    hub.faults.add(hold := HoldAfter(MIB), origin="cdn")
    queue = QueueSettings(files=2, progress_interval=0.02)
    async with engine_in(tmp_path, hub.endpoint, queue=queue, connections_per_file=3, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 6 * MIB)
        assert len(hub.journal.requests(origin="cdn")) == 2 * 3
        hold.release()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        at_once = [len(progress.files_in_flight) for progress in bench.told.progress_of[created.id]]
        assert max(at_once) == 2


async def test_an_interrupted_process_goes_on_by_itself(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(40 * MIB)})
    stall = hub.faults.add(StallAfter(2 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 10 * MIB)
        head = await bench.scheduler.head()
    assert bench.told.states(created.id)[-1] is State.QUEUED
    hub.faults.remove(stall)
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        done = await bench.told.end(created.id)
        assert done.state is State.SUCCEEDED
        assert done.progress.resumed_bytes >= 10 * MIB
        missed = bench.store.replay(head.revision)
        assert missed is not None
        assert [entry.revision for entry in missed] == list(range(head.revision + 1, done.log_revision + 1))
        seen = [entry.download.state for entry in missed if entry.download]
        assert seen == [State.QUEUED, State.RUNNING, State.VERIFYING, State.SUCCEEDED]


async def test_a_paused_download_stays_paused_over_a_restart(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(hold := HoldAfter(), "config.json")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.scheduler.pause(created.id)
    hold.release()
    async with engine_in(tmp_path, hub.endpoint) as bench:
        assert (await bench.scheduler.get(created.id)).state is State.PAUSED
        await bench.scheduler.resume(created.id)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_what_finished_long_ago_is_forgotten(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    queue = QueueSettings(retention=0.0, housekeeping_interval=0.05)
    async with engine_in(tmp_path, hub.endpoint, queue=queue) as bench:
        done = await bench.create(repo)
        await bench.told.until(lambda: any(entry.download is None for entry in bench.told.entries))
        assert bench.told.entries[-1].uid == done.id
        with pytest.raises(Fault) as caught:
            await bench.scheduler.get(done.id)
        assert caught.value.reason is Reason.DOWNLOAD_NOT_FOUND


async def test_offline_serves_what_is_there_and_nothing_else(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {**SMALL, "model.gguf": Random(MIB)})
    async with engine_in(tmp_path, hub.endpoint) as bench:
        await bench.fetch(repo, paths=["config.json"])
    hub.journal.clear()
    async with engine_in(tmp_path, hub.endpoint, offline="HF_HUB_OFFLINE=1") as bench:
        assert (await bench.fetch(repo, paths=["config.json"])).state is State.SUCCEEDED
        failed = await bench.fetch(repo)
        assert failed.failure is not None
        assert failed.failure.reason is Reason.OFFLINE
    assert hub.journal.requests() == []


async def test_a_preview_changes_nothing(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    async with engine_in(tmp_path, hub.endpoint) as bench:
        assert (await bench.scheduler.preview(request(repo))).state is State.QUEUED
        done = await bench.fetch(repo)
        assert (await bench.scheduler.preview(request(repo))).state is State.SUCCEEDED
        assert await bench.scheduler.page(limit=9) == [await bench.scheduler.get(done.id)]
        assert (await bench.scheduler.head()).revision == done.log_revision


async def test_a_draining_engine_takes_nothing_new(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    async with engine_in(tmp_path, hub.endpoint) as bench:
        await bench.scheduler.drain()
        with pytest.raises(Fault) as caught:
            await bench.create(repo)
        assert caught.value.reason is Reason.DRAINING


def found(directory: Path, name: str) -> list[Path]:
    return list(directory.rglob(name))


async def test_hostile_names_never_reach_the_disk(hub: HubEmulator, tmp_path: Path) -> None:
    async with engine_in(tmp_path, hub.endpoint) as bench:
        for number, files in enumerate(
            [
                {"../../evil": b"x"},
                {"ok.gguf": FileSpec(source=b"x", etag="../../../../evil")},
                {"a": b"x", "a/b": b"y"},
            ]
        ):
            repo = hub.add_repo(f"org/m{number}", files)  # type: ignore[arg-type]
            with pytest.raises(Fault) as caught:
                await bench.create(repo)
            assert caught.value.reason is Reason.HUB_ANSWER_UNSAFE
    assert found(tmp_path, "*evil*") == []
