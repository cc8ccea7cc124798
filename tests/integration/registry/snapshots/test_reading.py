"""What is in the cache, whoever put it there."""

import os
import shutil
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from huggingface_hub import scan_cache_dir, snapshot_download
from slipway.registry.v1.snapshot_service_pb2 import ListSnapshotsRequest
from slipway_client.events import Changed, Removed
from slipway_registry.cache.keeper import Keeper
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit

from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import EVERYTHING, GGUFS, PATIENCE, Q4, reason_of, served

pytestmark = pytest.mark.anyio


def native_download(hub: HubEmulator, cache: Path, repo: str, allow_patterns: str | None = None) -> None:
    snapshot_download(repo, cache_dir=cache, endpoint=hub.endpoint, token=False, allow_patterns=allow_patterns)


async def test_a_download_becomes_a_snapshot(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        download = await it.pull(repo, Q4)
        found = await it.snapshot(repo)
        assert (found.name, found.path) == (download.snapshot, download.snapshot_path)
        assert (found.repo_id, found.commit, list(found.refs)) == ("org/m", repo.head.id, ["main"])
        standing = {variant.name: (variant.complete, variant.verified) for variant in found.variants}
        assert standing == {"Q4_K_M": (True, True), "Q8_0": (False, False)}
        assert not found.complete
        present = {file.file.path: file.present for file in found.files}
        assert present == {"config.json": True, "README.md": True, "model-Q4_K_M.gguf": True, "model-Q8_0.gguf": False}
        (listed,) = await it.client.list_snapshots()
        assert (listed.name, len(listed.files)) == (found.name, 0)
        assert (await it.client.get_snapshot(found.name)).snapshot == found
        await it.pull(repo, EVERYTHING)
        assert (await it.snapshot(repo)).complete


async def test_a_snapshot_is_found_by_commit_and_ref_without_the_hub(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        first = await it.snapshot(repo)
    hub.journal.clear()
    async with served(tmp_path, hub.endpoint, offline=True) as it:
        again = await it.snapshot(repo, repo.head.id)
        assert again == first
        missing = await reason_of(it.snapshot(repo, "nope"))
        assert missing.reason == "SNAPSHOT_NOT_FOUND"
        assert (await reason_of(it.client.get_snapshot("snapshots/nope"))).reason == "SNAPSHOT_NOT_FOUND"
    assert hub.journal.requests() == []


async def test_the_index_follows_other_programs(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_repo("org/native", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await to_thread.run_sync(lambda: native_download(hub, it.hub, "org/native", "*Q4*"))
        (found,) = await it.listed(lambda snapshots: any(one.complete for it in snapshots for one in it.variants))
        assert [variant.complete for variant in found.variants] == [True, False]
        assert not any(variant.verified for variant in found.variants)
        await to_thread.run_sync(lambda: native_download(hub, it.hub, "org/native"))
        await it.listed(lambda snapshots: snapshots[0].complete)
        strategy = (await to_thread.run_sync(scan_cache_dir, it.hub)).delete_revisions(found.commit)
        await to_thread.run_sync(strategy.execute)
        await it.listed(lambda snapshots: not snapshots)
        await to_thread.run_sync(lambda: native_download(hub, it.hub, "org/native"))
        (again,) = await it.listed(bool)
        assert (again.name, again.uid == found.uid) == (found.name, False)
        paths = it.paths("org/native")
        blob = (paths.snapshot(Commit(found.commit)) / "model-Q4_K_M.gguf").resolve()
        await to_thread.run_sync(blob.unlink)
        damaged = (await it.client.get_snapshot(found.name)).snapshot
        assert (damaged.uid, damaged.complete, damaged.etag != again.etag) == (again.uid, False, True)


async def test_lists_are_paged_by_repository_and_commit(hub: HubEmulator, tmp_path: Path) -> None:
    repos = [hub.add_repo(f"org/m{number}", {"readme.txt": b"%d" % number}) for number in range(5)]
    async with served(tmp_path, hub.endpoint) as it:
        for repo in reversed(repos):
            await it.pull(repo)
        stub = it.client._snapshots
        first = await stub.ListSnapshots(ListSnapshotsRequest(page_size=2))
        second = await stub.ListSnapshots(ListSnapshotsRequest(page_size=3, page_token=first.next_page_token))
        names = [snapshot.repo_id for snapshot in (*first.snapshots, *second.snapshots)]
        assert names == [repo.id for repo in repos]
        assert second.next_page_token == ""
        assert [it.repo_id for it in await it.client.list_snapshots(repo_id="org/m3")] == ["org/m3"]


async def test_changes_are_watched(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_snapshots() as watch:
                await it.pull(repo, Q4)
                while not (isinstance(event := await anext(watch), Changed) and event.resource.refs):
                    pass
                assert event.resource.commit == repo.head.id
                assert [variant.complete for variant in event.resource.variants] == [True, False]
                await to_thread.run_sync(shutil.rmtree, it.paths(repo).root)
                while not isinstance(gone := await anext(watch), Removed):
                    pass
                assert (gone.name, gone.uid) == (event.resource.name, event.resource.uid)


async def test_usage_counts_every_byte_once(hub: HubEmulator, tmp_path: Path) -> None:
    one = hub.add_repo("org/one", GGUFS)
    two = hub.add_repo("org/two", {**GGUFS, "more.txt": b"more"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(one)
        await it.pull(two)
        usage = await it.client.get_cache_usage()
        inodes = {}
        for file in it.hub.glob("models--*/blobs/*"):
            inodes[file.stat().st_ino] = file.stat().st_size
        assert usage.snapshot_bytes == sum(inodes.values())
        assert (usage.repo_count, usage.snapshot_count, usage.partial_bytes, usage.trash_bytes) == (2, 2, 0, 0)
        free = os.statvfs(it.hub)
        assert usage.disk_total_bytes == free.f_blocks * free.f_frsize
        exclusive = {found.repo_id: found.exclusive_bytes for found in await it.client.list_snapshots()}
        assert exclusive == {"org/one": 0, "org/two": 4}


async def test_usage_of_each_repository(hub: HubEmulator, tmp_path: Path) -> None:
    one = hub.add_repo("org/one", GGUFS)
    two = hub.add_repo("org/two", {**GGUFS, "more.txt": b"more"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(one)
        await it.pull(two, revision=two.head.id)
        two.commit({"more.txt": b"much more"})
        await it.pull(two, revision=two.head.id)
        await it.client.pin_snapshot("org/two", two.head.id, holder="h", selection=Q4)
        answer = await it.client.get_cache_usage_by_repo()
        whole = sum(blob.stat().st_size for blob in it.paths(one).blobs.iterdir())
        first, second = answer.repos
        assert (first.repo_id, first.snapshot_count, first.pin_count) == ("org/one", 1, 0)
        assert (second.repo_id, second.snapshot_count, second.pin_count) == ("org/two", 2, 1)
        assert (first.snapshot_bytes, first.exclusive_bytes, first.pinned_bytes) == (whole, 0, 0)
        extra = len(b"more") + len(b"much more")
        assert (second.snapshot_bytes, second.exclusive_bytes) == (whole + extra, extra)
        assert 0 < second.pinned_bytes < whole
        assert answer.usage.snapshot_bytes == whole + extra, "what the two share counts once"


async def test_a_cache_that_has_gone_is_not_made_anew(hub: HubEmulator, tmp_path: Path) -> None:
    """It may have been a mount. Calls say what to do."""
    one, two = (hub.add_repo(name, GGUFS) for name in ("org/one", "org/two"))
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(one)
        await to_thread.run_sync(shutil.rmtree, it.hub)
        for call in (it.client.get_cache_usage(), it.snapshot(one), it.client.prune_cache(quota_bytes=0)):
            gone = await reason_of(call)
            assert (gone.reason, str(it.hub) in str(gone), "restart" in str(gone)) == ("DISK_FAULT", True, True)
        failed = await reason_of(it.pull(two))
        assert (failed.reason, str(it.hub) in str(failed)) == ("DISK_FAULT", True)
        assert not it.hub.exists()
    async with served(tmp_path, hub.endpoint) as it:
        assert await it.client.list_snapshots() == []
        await it.pull(two)


async def test_a_download_that_cannot_be_entered_ends_nothing(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    refused = anyio.Event()

    async def refuse(*_: object) -> None:
        refused.set()
        raise Fault(Reason.DISK_FAULT, "the database cannot be written")

    async with served(tmp_path, hub.endpoint) as it:
        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "used", refuse)
            await it.pull(repo)
            await refused.wait()
        assert (await it.snapshot(repo)).complete


async def test_a_cursor_is_where_the_snapshot_that_it_came_with_was(hub: HubEmulator, tmp_path: Path) -> None:
    """Another program's change is in the answer, so it is not sent again to who watches from there."""
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint, rescan_interval=600.0) as it:
        await it.pull(repo)
        await it.snapshot(repo)
        (it.paths(repo).snapshot(Commit(repo.head.id)) / "model-Q8_0.gguf").unlink()
        changed = await it.client.get_snapshot(repo_id=repo.id)
        again = await it.client.get_snapshot(repo_id=repo.id)
        assert changed == again
