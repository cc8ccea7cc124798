"""Native clients that work on the cache at the same time as the registry."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from anyio import to_thread
from slipway_registry.jobs.records import State
from slipway_registry.transfer.choice import Transport

from tests.faults.patience import PATIENT
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter
from tests.hub.repos import Repo
from tests.integration.hub.clients import Native
from tests.integration.registry import native_reads
from tests.integration.registry.engines import Bench, engine_in

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def native(hub: HubEmulator, tmp_path: Path) -> Native:
    """huggingface_hub on the registry's cache."""
    return Native(hub.endpoint, tmp_path)


@pytest.fixture
def repo(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/m", {"config.json": b"{}", "model.safetensors": Random(SIZE)}, xet=True)


def assert_whole(bench: Bench, repo: Repo) -> None:
    for file in repo.head.files.values():
        digest = hashlib.sha256((bench.snapshot(repo) / file.path).read_bytes()).hexdigest()
        assert digest == file.blob.sha256


def delete(directory: Path) -> None:
    """Take a directory away from under somebody who writes into it: what appears meanwhile makes rmtree stumble."""
    while True:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError:
            continue
        return


@pytest.mark.parametrize("disable_xet", ["0", "1"], ids=["xet", "http"])
async def test_a_native_download_of_the_same_at_the_same_time(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo, disable_xet: str
) -> None:
    hub.throttle.set("cdn", total=20.0 * MIB)
    hub.throttle.set("cas", total=20.0 * MIB)
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, MIB)
        done = await to_thread.run_sync(lambda: native.hf("download", "org/m", HF_HUB_DISABLE_XET=disable_xet))
        assert done.returncode == 0, done.stderr
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert_whole(bench, repo)
    assert native.call(native_reads.scan)["warnings"] == []
    if disable_xet == "1":  # it waited for us at its own lock, and found the blob there
        assert sum(exchange.sent for exchange in hub.journal.requests(origin="cdn")) == SIZE


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
async def test_prune_during_a_download_costs_nothing(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo, transport: Transport
) -> None:
    hold = HoldAfter(2 * MIB)
    hub.faults.add(hold, "cdn/|xorbs/")
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        created = await bench.create(repo)
        await to_thread.run_sync(lambda: hub.journal.wait_for("cdn/|xorbs/"))
        pruned = await to_thread.run_sync(lambda: native.hf("cache", "prune", "--yes"))
        assert pruned.returncode == 0, pruned.stderr
        hold.release()
        done = await bench.told.end(created.id)
        assert done.state is State.SUCCEEDED
        assert_whole(bench, repo)
    if transport is Transport.HTTP:
        assert sum(exchange.sent for exchange in hub.journal.requests(origin="cdn")) == SIZE


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
async def test_what_is_deleted_while_it_is_fetched_is_fetched_again(
    hub: HubEmulator, tmp_path: Path, repo: Repo, transport: Transport
) -> None:
    """`hf cache rm` refuses a repository without a snapshot, so this is the rmtree that it does to others."""
    hold = HoldAfter(2 * MIB)
    hub.faults.add(hold, "cdn/|xorbs/")
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        created = await bench.create(repo)
        await bench.told.state(created.id, State.RUNNING)
        await to_thread.run_sync(lambda: hub.journal.wait_for("cdn/|xorbs/"))
        delete(bench.paths(repo).root)
        hold.release()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert_whole(bench, repo)


async def test_a_repository_that_is_removed_while_another_revision_comes(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo
) -> None:
    first = repo.head.id
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        await bench.fetch(repo)
        repo.commit({"config.json": b'{"v": 2}', "model.safetensors": Random(SIZE, 2)})
        hold = HoldAfter(2 * MIB)
        hub.faults.add(hold, origin="cdn")
        created = await bench.create(repo)
        await bench.told.some_bytes(created.id, 6 * MIB)
        removed = await to_thread.run_sync(lambda: native.hf("cache", "rm", "model/org/m", "--yes"))
        assert removed.returncode == 0, removed.stderr
        assert not bench.snapshot(repo, first).exists()
        hold.release()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert_whole(bench, repo)
    assert native.call(native_reads.scan)["warnings"] == []


async def test_what_was_removed_is_fetched_again(hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo) -> None:
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        await bench.fetch(repo)
        removed = await to_thread.run_sync(lambda: native.hf("cache", "rm", "model/org/m", "--yes"))
        assert removed.returncode == 0, removed.stderr
        assert not bench.snapshot(repo).exists()
        anew = await bench.fetch(repo)
        assert (anew.state, anew.progress.cached_bytes) == (State.SUCCEEDED, 0)
        assert_whole(bench, repo)


async def test_a_removed_revision_leaves_what_another_needs(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo
) -> None:
    first = repo.head.id
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        await bench.fetch(repo)
        repo.commit({"config.json": b'{"v": 2}'})
        await bench.fetch(repo)
        removed = await to_thread.run_sync(lambda: native.hf("cache", "rm", first, "--yes"))
        assert removed.returncode == 0, removed.stderr
        assert_whole(bench, repo)
        hub.journal.clear()
        assert (await bench.fetch(repo, commit=first)).state is State.SUCCEEDED
    assert hub.journal.requests(origin="cdn") == []
    assert native.call(native_reads.scan)["warnings"] == []


async def test_a_blob_in_the_shared_store_is_hashed_and_used(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo
) -> None:
    fetched = await to_thread.run_sync(lambda: native.hf("download", "org/m"))
    assert fetched.returncode == 0, fetched.stderr
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        blob = bench.paths(repo).blobs / repo.head.files["model.safetensors"].etag
        assert blob.is_symlink()  # else this is about something else
        hub.journal.clear()
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
        assert hub.journal.requests() == []
        assert blob.is_symlink()


async def test_a_wrong_blob_in_the_shared_store_is_replaced_and_stays_there(
    hub: HubEmulator, tmp_path: Path, native: Native, repo: Repo
) -> None:
    fetched = await to_thread.run_sync(lambda: native.hf("download", "org/m"))
    assert fetched.returncode == 0, fetched.stderr
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        blob = bench.paths(repo).blobs / repo.head.files["model.safetensors"].etag
        shared = blob.resolve()
        shared.chmod(0o644)
        with shared.open("r+b") as file:
            file.write(bytes(100))
        done = await bench.fetch(repo)
        assert (done.state, done.mismatches) == (State.SUCCEEDED, 1)
        assert not blob.is_symlink()
        assert_whole(bench, repo)
        assert shared.read_bytes()[:100] == bytes(100)


async def test_a_link_into_a_shared_store_that_is_gone_is_replaced(
    hub: HubEmulator, tmp_path: Path, repo: Repo
) -> None:
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        blob = bench.paths(repo).blobs / repo.head.files["model.safetensors"].etag
        blob.parent.mkdir(parents=True)
        blob.symlink_to("../../blobs/ab/gone")
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
        assert not blob.is_symlink()
        assert_whole(bench, repo)


async def test_a_lock_that_a_stopped_client_holds_does_not_stop_us(
    hub: HubEmulator, tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_registry.cache.courtesy.PATIENCE", 0.3)
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        lock = bench.paths(repo).lock(repo.head.files["model.safetensors"].etag)  # type: ignore[arg-type]
        lock.parent.mkdir(parents=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
        os.close(fd)
