"""Deleting and pruning: what goes, what stays, and how many bytes that really frees."""

import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from huggingface_hub import scan_cache_dir, snapshot_download
from slipway_client.events import Changed

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import (
    EVERYTHING,
    GGUFS,
    KIB,
    PATIENCE,
    Q4,
    Q8,
    Served,
    reason_of,
    served,
)

pytestmark = pytest.mark.anyio


def disk(hub: Path) -> int:
    """Bytes of all regular files below the hub cache, by inode; the markers of the registry itself left out."""
    found = {}
    for file in hub.glob("models--*/**/*"):
        status = file.lstat()
        if file.is_file() and not file.is_symlink() and "blobs" in file.parts:
            found[status.st_ino] = status.st_size
    return sum(found.values())


def sound(it: Served) -> bool:
    """No link dangles, and huggingface_hub has nothing to complain of."""
    links = [path for path in it.hub.glob("models--*/snapshots/**/*") if path.is_symlink()]
    return all(link.exists() for link in links) and not scan_cache_dir(it.hub).warnings


async def test_a_snapshot_goes_and_frees_what_it_says(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        before = disk(it.hub)
        would = await it.client.delete_snapshot(name, validate_only=True)
        assert disk(it.hub) == before
        done = await it.client.delete_snapshot(name)
        assert (done.freed_bytes, done.paths) == (would.freed_bytes, would.paths)
        assert done.freed_bytes == before - disk(it.hub) == before
        assert sorted(done.paths) == sorted(GGUFS)
        assert not it.paths(repo).root.exists()
        assert await it.client.list_snapshots() == []
        assert (await reason_of(it.client.delete_snapshot(name))).reason == "SNAPSHOT_NOT_FOUND"
        await it.pull(repo)


async def test_shared_contents_stay_as_long_as_another_snapshot_links_them(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        old = await it.snapshot(repo)
        repo.commit({"README.md": b"another"}, title="Say more")
        await it.pull(repo, revision=repo.head.id)
        new = await it.snapshot(repo, repo.head.id)
        twin = hub.add_repo("org/twin", GGUFS)
        await it.pull(twin)
        before = disk(it.hub)
        done = await it.client.delete_snapshot(old.name)
        assert done.freed_bytes == before - disk(it.hub) == 0
        assert sound(it)
        assert (await it.client.get_snapshot(new.name)).snapshot.complete
        done = await it.client.delete_snapshot(new.name)
        assert done.freed_bytes == before - disk(it.hub) == len(b"another")
        assert (await it.snapshot(twin)).complete


async def test_one_variant_goes(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        done = await it.client.delete_snapshot(snapshot.name, variant="Q8_0")
        assert (done.freed_bytes, list(done.paths)) == (128 * KIB, ["model-Q8_0.gguf"])
        left = await it.snapshot(repo)
        assert [variant.complete for variant in left.variants] == [True, False]
        assert (left.uid, left.etag == snapshot.etag) == (snapshot.uid, False)
        assert sound(it)
        unknown = await reason_of(it.client.delete_snapshot(snapshot.name, variant="Q2_K"))
        assert (unknown.reason, unknown.resource) == ("VARIANT_NOT_FOUND", "Q2_K")
        assert (await reason_of(it.client.delete_snapshot(snapshot.name, etag=snapshot.etag))).reason == "ETAG_MISMATCH"


async def test_what_is_pinned_stays_and_its_holders_are_named(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        await it.client.pin_snapshot("org/m", holder="runner/a", selection=Q4)
        await it.client.pin_snapshot("org/m", holder="runner/b", selection=Q4)
        for options in ({}, {"validate_only": True}, {"variant": "Q4_K_M"}):
            refused = await reason_of(it.client.delete_snapshot(name, **options))
            assert refused.reason == "SNAPSHOT_PINNED"
            assert {found.subject for found in refused.preconditions} == {"runner/a", "runner/b"}
        assert (await it.snapshot(repo)).complete
        assert (await it.client.delete_snapshot(name, variant="Q8_0")).freed_bytes == 128 * KIB


async def test_force_asks_the_holder_and_waits(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        await it.client.pin_snapshot("org/m", holder="runner/a")
        order: list[str] = []

        async def holder() -> None:
            async with it.client.watch_pins(holder="runner/a") as watch:
                while not (isinstance(event := await anext(watch), Changed) and event.resource.release_requested):
                    pass
                busy = await reason_of(it.client.pin_snapshot("org/m", holder="runner/b"))
                assert busy.reason == "SNAPSHOT_BUSY"
                order.append("released")
                await it.client.unpin_snapshot(event.resource.name)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(holder)
                done = await it.client.delete_snapshot(name, force=True, timeout=PATIENCE)
                order.append("deleted")
        assert order == ["released", "deleted"]
        assert list(done.released_holders) == ["runner/a"]
        assert await it.client.list_snapshots() == []


async def test_a_keep_is_not_waited_for(hub: HubEmulator, tmp_path: Path) -> None:
    """Nobody lets go of it by being asked; nor is anybody asked whose letting go would be of no use."""
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        await it.client.pin_snapshot("org/m", holder="runner/a")
        keep = (await it.client.pin_snapshot("org/m", holder="operator", selection=Q4, keep=True)).pin
        with anyio.fail_after(PATIENCE / 2):
            for options in ({"timeout": 600.0}, {"variant": "Q4_K_M"}, {"validate_only": True}):
                refused = await reason_of(it.client.delete_snapshot(name, force=True, **options))
                assert refused.reason == "SNAPSHOT_PINNED"
                assert [found.subject for found in refused.preconditions] == ["operator"]
        assert not any(pin.release_requested for pin in await it.client.list_pins())
        await it.client.unpin_snapshot(keep.name)
        would = await it.client.delete_snapshot(name, force=True, validate_only=True)
        assert would.freed_bytes > 0


async def test_a_keep_that_is_left_ends_the_waiting(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        one = (await it.client.pin_snapshot("org/m", holder="runner/a", claim="one")).pin
        two = (await it.client.pin_snapshot("org/m", holder="runner/b", claim="two")).pin
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:

                async def delete() -> None:
                    refused = await reason_of(it.client.delete_snapshot(name, force=True, timeout=600.0))
                    assert [found.subject for found in refused.preconditions] == ["runner/b"]

                tasks.start_soon(delete)
                async with it.client.watch_pins() as watch:
                    while not (isinstance(event := await anext(watch), Changed) and event.resource.release_requested):
                        pass
                # Its holder makes a keep of it instead of letting go.
                await it.client.pin_snapshot("org/m", holder="runner/b", claim="two", keep=True)
                await it.client.unpin_snapshot(one.name)
        (left,) = await it.client.list_pins()
        assert (left.name, left.release_requested) == (two.name, False)


async def test_a_holder_that_connects_late_is_asked_too(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        cursor = (await it.client.pin_snapshot("org/m", holder="runner/a")).cursor
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(it.client.delete_snapshot, name, force=True, timeout=PATIENCE))
                async with it.client.watch_pins(holder="runner/a") as early:
                    while not (isinstance(event := await anext(early), Changed) and event.resource.release_requested):
                        pass
                # One that comes now sees it in the state, and one that was away in what it missed.
                async with it.client.watch_pins(holder="runner/a") as late:
                    state = await anext(late)
                    assert isinstance(state, Changed)
                    assert state.resource.release_requested
                async with it.client.watch_pins(holder="runner/a", after=cursor) as back:
                    missed = await anext(back)
                    assert isinstance(missed, Changed)
                    assert missed.resource.release_requested
                await it.client.unpin_snapshot(missed.resource.name)
        assert await it.client.list_snapshots() == []


async def test_force_gives_up_before_the_deadline(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_registry.rpc.snapshots._ANSWER_TIME", 0.95)
    monkeypatch.setattr("slipway_registry.rpc.snapshots._ANSWER_MOST", 60.0)
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        await it.client.pin_snapshot("org/m", holder="runner/a")
        refused = await reason_of(it.client.delete_snapshot(name, force=True, timeout=30.0))
        assert (refused.reason, refused.preconditions[0].subject) == ("SNAPSHOT_PINNED", "runner/a")
        (pin,) = await it.client.list_pins()
        assert not pin.release_requested
        await it.client.pin_snapshot("org/m", holder="runner/b")


async def test_a_caller_that_gives_up_waiting_leaves_the_holder_alone(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        await it.client.pin_snapshot("org/m", holder="runner/a")
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_pins(holder="runner/a") as watch, anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: it.client.delete_snapshot(name, force=True, timeout=PATIENCE))
                while not (isinstance(event := await anext(watch), Changed) and event.resource.release_requested):
                    pass
                tasks.cancel_scope.cancel()
            async with it.client.watch_pins(holder="runner/a") as watch:
                while not (isinstance(event := await anext(watch), Changed) and not event.resource.release_requested):
                    pass
        assert (await it.snapshot(repo)).complete
        await it.client.pin_snapshot("org/m", holder="runner/b")


async def test_open_files_are_kept_for_the_grace(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint, delete_grace=3600.0) as it:
        await it.pull(repo)
        before = disk(it.hub)
        done = await it.client.delete_snapshot((await it.snapshot(repo)).name)
        usage = await it.client.get_cache_usage()
        assert (usage.snapshot_bytes, usage.trash_bytes) == (0, done.freed_bytes)
        assert done.freed_bytes == disk(it.hub) == before
        assert sound(it)
    async with served(tmp_path, hub.endpoint, delete_grace=0.0) as it:
        await it.pull(repo)
        await it.client.delete_snapshot((await it.snapshot(repo)).name)
        assert disk(it.hub) == 0


async def test_a_prune_takes_the_least_recently_used_and_says_why(hub: HubEmulator, tmp_path: Path) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        for number in range(4):
            hub.add_repo(f"org/m{number}", {"blob.txt": bytes([number]) * 1000})
            await it.pull(f"org/m{number}")
        await it.client.pin_snapshot("org/m0", holder="h")
        plan = await it.client.prune_cache(quota_bytes=2000, validate_only=True)
        assert [item.repo_id for item in plan.items] == ["org/m1", "org/m2"]
        assert (plan.freed_bytes, disk(it.hub)) == (2000, 4000)
        done = await it.client.prune_cache(quota_bytes=2000)
        assert [(item.snapshot, item.freed_bytes) for item in done.items] == [
            (item.snapshot, item.freed_bytes) for item in plan.items
        ]
        assert disk(it.hub) == 2000
        rest = await it.client.prune_cache(unused_for=0.0)
        assert ([item.repo_id for item in rest.items], rest.pinned_count) == (["org/m3"], 1)
        assert [found.repo_id for found in await it.client.list_snapshots()] == ["org/m0"]
        assert list((await it.client.prune_cache()).items) == []


async def test_hf_cache_prune_takes_nothing_that_is_pinned_or_kept(hub: HubEmulator, tmp_path: Path) -> None:
    """Of what other programs put there by commit, without a ref: that is what the command takes."""
    repos = {name: hub.add_repo(f"org/{name}", GGUFS) for name in ("pinned", "kept", "free")}
    async with served(tmp_path, hub.endpoint) as it:
        for name, repo in repos.items():
            fetch = partial(snapshot_download, repo.id, revision=repo.head.id, cache_dir=it.hub, token=False)
            await to_thread.run_sync(partial(fetch, endpoint=hub.endpoint))
            if name != "free":
                await it.client.pin_snapshot(repo.id, repo.head.id, holder="h", keep=name == "kept")
        ours = hub.add_repo("org/ours", GGUFS)
        await it.pull(ours, Q8, revision=ours.head.id)
        command = [str(Path(sys.executable).parent / "hf"), "cache", "prune", "--yes", "--cache-dir", str(it.hub)]
        ended = await to_thread.run_sync(lambda: subprocess.run(command, capture_output=True, text=True))
        assert ended.returncode == 0, ended.stderr
        left = await it.listed(lambda snapshots: len(snapshots) <= 3)
        assert [found.repo_id for found in left] == ["org/kept", "org/ours", "org/pinned"]
        assert [found.complete for found in left] == [True, False, True]
        assert sound(it)


async def test_what_cannot_be_removed_keeps_its_refs_and_is_told(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, free = hub.add_repo("org/stuck", GGUFS), hub.add_repo("org/free", GGUFS)
    rename = Path.rename
    async with served(tmp_path, hub.endpoint) as it:
        for repo in (stuck, free):
            await it.pull(repo)
        paths, name = it.paths(stuck), (await it.snapshot(stuck)).name
        refs = {path: path.read_bytes() for path in paths.refs.rglob("*") if path.is_file()}

        def refuse(path: Path, target: Path) -> Path:
            if path.parent == paths.snapshots:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            assert (await reason_of(it.client.delete_snapshot(name))).reason == "DISK_FAULT"
            assert len(refs) == 2
            assert {path: path.read_bytes() for path in paths.refs.rglob("*") if path.is_file()} == refs
            refused = await reason_of(it.client.prune_cache(unused_for=0.0))
            assert refused.reason == "DISK_FAULT"
            assert "1 of the snapshots" in str(refused)
        assert [found.repo_id for found in await it.client.list_snapshots()] == ["org/stuck"]
        (paths.refs / "odd").write_bytes(b"\xff\xfe")
        await it.client.delete_snapshot(name)
        assert await it.client.list_snapshots() == []


async def test_a_disk_without_room_for_the_trash_can_be_emptied(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)

    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        with monkeypatch.context() as patch:
            patch.setattr("slipway_registry.cache.trash.make_directory", full)
            before = disk(it.hub)
            one = await it.client.delete_snapshot(name, variant="Q8_0")
            assert one.freed_bytes == before - disk(it.hub) == 128 * KIB
            assert sound(it)
            rest = await it.client.delete_snapshot(name)
            assert rest.freed_bytes == before - 128 * KIB
            assert disk(it.hub) == 0
            assert await it.client.list_snapshots() == []
    async with served(tmp_path, hub.endpoint, delete_grace=60.0) as it:
        await it.pull(repo)
        assert (await it.snapshot(repo)).name == name
        monkeypatch.setattr("slipway_registry.cache.trash.make_directory", full)
        assert (await reason_of(it.client.delete_snapshot(name))).reason == "DISK_FAULT"
        assert (await it.snapshot(repo)).complete


async def test_a_prune_counts_what_a_paused_download_needs_as_staying(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"shared.bin": Random(64 * KIB, 1)})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        old = await it.snapshot(repo)
        repo.commit({"new.bin": Random(4096 * KIB, 3)}, title="More")
        hub.throttle.set("cdn", per_connection=64 * KIB)
        began = await it.client.create_download("org/m", repo.head.id, selection=EVERYTHING)
        await it.client.pause_download(began.download.name)
        would = await it.client.prune_cache(unused_for=0.0, validate_only=True)
        before = disk(it.hub)
        done = await it.client.prune_cache(unused_for=0.0)
        assert [item.snapshot for item in done.items] == [old.name]
        assert done.freed_bytes == would.freed_bytes == before - disk(it.hub) == 0
