"""Hashing what is there, saying what is wrong, and fetching just that again."""

import hashlib
import json
import os
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio import to_thread
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway.registry.v1.selection_pb2 import PatternSelection, Selection
from slipway.registry.v1.snapshot_service_pb2 import VerifySnapshotResponse
from slipway_client import SlipwayError
from slipway_client.events import Changed
from slipway_registry.transfer.errors import DiskFull
from slipway_service.weights.names import Commit

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import GGUFS, PATIENCE, Served, served
from tests.integration.registry.traffic import sent

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def verify(it: Served, name: str, *, variant: str = "", repair: bool = False) -> list[VerifySnapshotResponse]:
    return [answer async for answer in it.client.verify_snapshot(name, variant=variant, repair=repair)]


def kinds(answers: list[VerifySnapshotResponse]) -> list[tuple[str, str]]:
    return [
        (found.path, pb.FindingKind.Name(found.kind).removeprefix("FINDING_KIND_"))
        for answer in answers
        for found in answer.findings
    ]


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


async def test_what_is_right_is_called_verified(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        before = await it.snapshot(repo)
        answers = await verify(it, before.name)
        assert (kinds(answers), answers[-1].open_findings) == ([], 0)
        done = answers[-2].progress
        assert done.done_bytes == done.total_bytes == before.present_bytes
        after = await it.snapshot(repo)
        assert all(file.verify_time.ToNanoseconds() > 0 for file in after.files)
        assert after.files[0].verify_time.ToNanoseconds() > before.files[0].verify_time.ToNanoseconds()


async def test_what_is_wrong_is_said(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        root = it.hub / (await it.snapshot(repo)).path
        flip((root / "model-Q4_K_M.gguf").resolve(), 100)
        (root / "model-Q8_0.gguf").resolve().unlink()
        answers = await verify(it, name)
        assert sorted(kinds(answers)) == [("model-Q4_K_M.gguf", "DAMAGED"), ("model-Q8_0.gguf", "MISSING")]
        assert answers[-1].open_findings == 2
        files = {file.file.path: file for file in (await it.snapshot(repo)).files}
        damaged = files["model-Q4_K_M.gguf"]
        assert (damaged.damaged, damaged.HasField("verify_time")) == (True, False)
        assert not files["config.json"].damaged
        only = await verify(it, name, variant="Q8_0")
        assert kinds(only) == [("model-Q8_0.gguf", "MISSING")]
        with pytest.raises(SlipwayError) as caught:
            await verify(it, name, variant="Q2_K")
        assert caught.value.reason == "VARIANT_NOT_FOUND"


async def test_damage_is_found_in_the_background_and_repaired_on_demand(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model-Q8_0.gguf": Random(16 * MIB), "fine.txt": b"fine"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        before = await it.snapshot(repo)
        assert before.complete
        file = (it.hub / before.path / "model-Q8_0.gguf").resolve()
        times = file.stat()
        flip(file, 5 * MIB + 7)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk damages it
        cursor = (await it.client.get_snapshot(before.name)).cursor
    async with served(tmp_path, hub.endpoint, scrub_interval=0.5) as it:
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_snapshots(after=cursor) as watch:
                event = await anext(watch)
                while not (isinstance(event, Changed) and event.resource.damaged_count):
                    event = await anext(watch)
        assert not event.resource.complete
        assert [(found.complete, found.verified) for found in event.resource.variants] == [(False, False)]
        state = json.loads((tmp_path / "state" / "addresses.json").read_text())
        scraped = await to_thread.run_sync(lambda: httpx2.get(f"http://{state['metrics']}/metrics").text)
        assert "slipway_cache_damaged_files 1.0" in scraped
        assert "slipway_scrub_damaged_files_total 1.0" in scraped
        hub.journal.clear()
        answers = await verify(it, before.name, repair=True)
        assert (kinds(answers)[-1], answers[-1].open_findings) == (("model-Q8_0.gguf", "REPAIRED"), 0)
        assert sent(hub.journal) == MIB
        after = await it.snapshot(repo)
        assert (after.complete, after.damaged_count, after.variants[0].verified) == (True, 0, True)


async def test_what_is_written_in_place_is_known_to_lists_pins_and_downloads(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_registry.cache.scan._RACY", 0)  # no directory changes, however recent
    repo = hub.add_repo("org/m", {"model.safetensors": Random(2 * MIB), "config.json": b"{}"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        content = (it.hub / (await it.snapshot(repo)).path / "model.safetensors").resolve()
        flip(content, MIB + 7)
        assert kinds(await verify(it, name)) == [("model.safetensors", "DAMAGED")]
        (listed,) = await it.client.list_snapshots()
        assert (listed.complete, listed.damaged_count) == (False, 1)
        with pytest.raises(SlipwayError) as caught:
            await it.client.pin_snapshot("org/m", holder="h", selection=Selection(everything=True))
        assert caught.value.reason == "SNAPSHOT_INCOMPLETE"
        await it.pull(repo)
        assert (await it.snapshot(repo)).complete
        os.truncate(content, 100)
        assert not (await it.snapshot(repo)).complete
        await it.pull(repo)
        assert (await it.snapshot(repo)).complete
        assert kinds(await verify(it, name)) == []


async def test_what_was_found_earlier_is_repaired_by_its_blocks_too(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"big.bin": Random(8 * MIB)})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        flip((it.hub / (await it.snapshot(repo)).path / "big.bin").resolve(), 3 * MIB)
        for _ in range(2):
            assert kinds(await verify(it, name)) == [("big.bin", "DAMAGED")]
        hub.journal.clear()
        assert (await verify(it, name, repair=True))[-1].open_findings == 0
        assert sent(hub.journal) == MIB


async def test_a_download_replaces_what_is_damaged(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"big.bin": Random(2 * MIB)})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        flip((it.hub / (await it.snapshot(repo)).path / "big.bin").resolve(), 3)
        assert kinds(await verify(it, name)) == [("big.bin", "DAMAGED")]
        assert not (await it.snapshot(repo)).complete
        await it.pull(repo)
        assert (await it.snapshot(repo)).complete
        assert kinds(await verify(it, name)) == []


async def test_a_repair_fetches_the_damaged_block_only(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"big.bin": Random(16 * MIB), "gone.txt": b"gone", "fine.txt": b"fine"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        root = it.hub / snapshot.path
        flip((root / "big.bin").resolve(), 5 * MIB + 7)
        (root / "gone.txt").resolve().unlink()
        hub.journal.clear()
        answers = await verify(it, snapshot.name, repair=True)
        found = kinds(answers)
        assert found[-2:] == [("big.bin", "REPAIRED"), ("gone.txt", "REPAIRED")]
        assert answers[-1].open_findings == 0
        assert hashlib.sha256((root / "big.bin").read_bytes()).hexdigest() == repo.head.files["big.bin"].blob.sha256
        assert sent(hub.journal) == MIB
        after = await it.snapshot(repo)
        assert after.complete
        assert not any(file.damaged for file in after.files)
        assert kinds(await verify(it, snapshot.name)) == []


async def test_damage_that_repositories_share_is_told_of_both_and_not_linked_back(
    hub: HubEmulator, tmp_path: Path
) -> None:
    repos = [hub.add_repo(name, {"big.bin": Random(4 * MIB)}) for name in ("org/a", "org/b")]
    async with served(tmp_path, hub.endpoint) as it:
        for repo in repos:
            await it.pull(repo)
        ours, other = [await it.snapshot(repo) for repo in repos]
        content = it.hub / ours.path / "big.bin"
        assert content.samefile(it.hub / other.path / "big.bin")
        times = content.stat()
        flip(content.resolve(), MIB + 7)
        os.utime(content, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk damages it
        assert kinds(await verify(it, ours.name)) == [("big.bin", "DAMAGED")]
        assert [(await it.snapshot(repo)).damaged_count for repo in repos] == [1, 1]
        hub.journal.clear()
        assert (await verify(it, ours.name, repair=True))[-1].open_findings == 0
        assert sent(hub.journal) == MIB
        assert kinds(await verify(it, ours.name)) == []
        hub.journal.clear()
        assert (await verify(it, other.name, repair=True))[-1].open_findings == 0
        assert content.samefile(it.hub / other.path / "big.bin")
        assert not hub.journal.requests(origin="cdn")


async def test_a_repair_knows_what_a_cache_without_listings_lacks(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"a.bin": Random(MIB, 1), "b.bin": Random(MIB, 2), "c.txt": b"c"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo, Selection(patterns=PatternSelection(include=["a.bin", "c.txt"])))
        snapshot = await it.snapshot(repo)
        it.paths(repo).tree(Commit(snapshot.commit)).unlink()
        root = it.hub / snapshot.path
        flip((root / "a.bin").resolve(), 9)
        assert (await verify(it, snapshot.name, repair=True))[-1].open_findings == 0
        after = await it.snapshot(repo)
        assert ([file.file.path for file in after.files if not file.present], after.complete) == (["b.bin"], False)
        assert kinds(await verify(it, snapshot.name)) == []


async def test_each_of_two_files_of_one_content_is_looked_at(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"x/a.bin": Random(MIB, 1), "y/a.bin": Random(MIB, 1)})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        copy = it.hub / snapshot.path / "y" / "a.bin"
        content = copy.read_bytes()
        copy.unlink()
        copy.write_bytes(content)
        flip(copy, 9)
        answers = await verify(it, snapshot.name)
        assert kinds(answers) == [("y/a.bin", "DAMAGED")]
        done = answers[-2].progress
        assert (done.done_bytes, done.total_bytes) == (2 * MIB, 2 * MIB)
        assert (await verify(it, snapshot.name, repair=True))[-1].open_findings == 0
        assert copy.read_bytes() == content
        assert kinds(await verify(it, snapshot.name)) == []


async def test_good_blocks_that_cannot_be_saved_do_not_keep_a_repair_from_all_of_it(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", {"big.bin": Random(2 * MIB)})

    class Full:
        @staticmethod
        def open(directory: Path, _: int) -> None:
            raise DiskFull("no space", path=str(directory))

    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        flip((it.hub / snapshot.path / "big.bin").resolve(), 3)
        monkeypatch.setattr("slipway_registry.cache.verify.Partial", Full)
        answers = await verify(it, snapshot.name, repair=True)
        assert (kinds(answers)[0], answers[-1].open_findings) == (("big.bin", "DAMAGED"), 0)
        assert kinds(await verify(it, snapshot.name)) == []
