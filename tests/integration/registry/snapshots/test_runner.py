"""How a runner holds what it runs from."""

import errno
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo
from slipway.registry.v1.download_pb2 import DownloadState
from slipway.registry.v1.snapshot_service_pb2 import PinSnapshotResponse
from slipway_client import Registry
from slipway_client.backoff import Backoff
from slipway_client.errors import Conflict
from slipway_runner.models.snapshots import Fetching, Held, Snapshot, Want
from slipway_runner.models.spec import RepoSource
from slipway_runner.rpc import mount
from slipway_runner.rpc.registry import RegistrySnapshots
from slipway_service.fault import Fault, FieldViolation, Reason

from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter
from tests.hub.repos import Repo
from tests.integration.client.fakes import Failure, serving
from tests.integration.client.resources import download, pulling
from tests.integration.registry.snapshots.served import GGUFS, PATIENCE, Q4, served

pytestmark = pytest.mark.anyio


def want(repo: Repo, uid: str, variant: str = "Q4_K_M") -> Want:
    source = RepoSource(repo_id=repo.id, revision="main")
    return Want(source=source, commit=repo.head.id, variant=variant, files=(), holder=uid)


def ignore(_: Fetching) -> None:
    pass


async def test_what_is_fetched_is_held_until_it_is_released(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        snapshots = RegistrySnapshots(it.client, it.hub, holder="runner/a")
        found = await snapshots.fetch(want(repo, "one"), ignore)
        assert (found.root / "model-Q4_K_M.gguf").is_file()
        assert (await snapshots.describe(RepoSource(repo_id="org/m"))).root == found.root
        assert found.name == (await it.snapshot(repo, repo.head.id)).name
        (pin,) = await it.client.list_pins()
        assert (pin.holder, pin.claim, "model-Q8_0.gguf" in pin.paths) == ("runner/a", "one", False)
        await snapshots.fetch(want(repo, "two", "Q8_0"), ignore)
        await snapshots.renew(want(repo, "one"))
        renewed = {pin.claim: pin for pin in await it.client.list_pins()}
        assert renewed["one"].name == pin.name
        assert renewed["one"].expire_time.ToNanoseconds() > pin.expire_time.ToNanoseconds()
        await snapshots.release("one")
        await snapshots.release("never there")
        assert [pin.claim for pin in await it.client.list_pins()] == ["two"]


async def test_a_load_resumes_no_download_that_somebody_has_paused(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    hub.faults.add(hold := HoldAfter(), origin="cdn")
    async with served(tmp_path, hub.endpoint) as it, anyio.create_task_group() as tasks:
        name = (await it.client.create_download("org/m", "main", selection=Q4)).download.name
        await it.client.pause_download(name)
        hold.release()
        paused, loaded = anyio.Event(), anyio.Event()
        snapshots = RegistrySnapshots(it.client, it.hub, holder="runner/a")

        async def load() -> None:
            await snapshots.fetch(want(repo, "one"), lambda now: paused.set() if now.paused else None)
            loaded.set()

        with anyio.fail_after(PATIENCE):
            tasks.start_soon(load)
            await paused.wait()
            assert (await it.client.get_download(name)).download.state == DownloadState.DOWNLOAD_STATE_PAUSED
            await it.client.resume_download(name)
            await loaded.wait()


async def test_another_cache_is_told_from_a_late_mount(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        with pytest.raises(Fault) as caught:
            await RegistrySnapshots(it.client, tmp_path / "other", holder="runner/a").fetch(want(repo, "one"), ignore)
        assert caught.value.reason is Reason.CACHE_NOT_SHARED
        late = tmp_path / "late"
        (late / ".locks").mkdir(parents=True)
        (late / ".locks" / "slipway-owner.json").write_bytes((it.hub / ".locks" / "slipway-owner.json").read_bytes())
        with pytest.raises(Fault) as caught:
            await RegistrySnapshots(it.client, late, holder="runner/a", patience=0.1).fetch(want(repo, "one"), ignore)
        assert caught.value.reason is Reason.CACHE_NOT_SHARED


async def test_without_the_registry_what_the_cache_has_is_described_and_loaded(
    hub: HubEmulator, tmp_path: Path
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        fetched = await RegistrySnapshots(it.client, it.hub, holder="runner/a").fetch(want(repo, "one"), ignore)
        cache = it.hub
    async with Registry.connect("127.0.0.1:1") as client:
        snapshots = RegistrySnapshots(client, cache, holder="runner/a")
        described = await snapshots.describe(RepoSource(repo_id="org/m", revision="main"))
        assert (described.commit, described.registry_bypassed) == (repo.head.id, True)
        wanted = replace(want(repo, "one"), files=("model-Q4_K_M.gguf",))
        assert await snapshots.fetch(wanted, ignore) == Snapshot(root=fetched.root, registry_bypassed=True)
        for missing in (
            snapshots.describe(RepoSource(repo_id="org/other")),
            snapshots.describe(RepoSource(repo_id="org/m", revision="v2")),
        ):
            with pytest.raises(Fault) as caught:
                await missing
            assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
            assert "the cache of this host has no org/" in caught.value.text
        with pytest.raises(Fault) as caught:
            await snapshots.fetch(replace(wanted, files=("model-Q8_0.gguf",)), ignore)
        assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE


async def test_a_registry_that_goes_away_before_the_pin_does_not_fail_the_load(
    hub: HubEmulator, tmp_path: Path
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await RegistrySnapshots(it.client, it.hub, holder="runner/a").fetch(want(repo, "one"), ignore)
        cache = it.hub
    fake = pulling(download("SUCCEEDED", 3))
    fake.answers["PinSnapshot"] = Failure(grpc.StatusCode.UNAVAILABLE)
    async with serving(fake), Registry.connect(fake.address, backoff=Backoff(draw=lambda: 0.0)) as client:
        wanted = replace(want(repo, "one"), files=("model-Q4_K_M.gguf",))
        found = await RegistrySnapshots(client, cache, holder="runner/a").fetch(wanted, ignore)
    assert found.registry_bypassed


async def test_what_the_registry_says_of_what_is_not_there_is_passed_on(tmp_path: Path) -> None:
    fake = pulling()
    absent = ResourceInfo(resource_type="repo", resource_name="org/m")
    wrong = BadRequest(field_violations=[BadRequest.FieldViolation(field="repo_id", description="not there")])
    fake.answers["GetRepo"] = Failure(grpc.StatusCode.NOT_FOUND, reason="REPO_NOT_FOUND", details=(absent, wrong))
    async with serving(fake), Registry.connect(fake.address) as client:
        with pytest.raises(Fault) as caught:
            await RegistrySnapshots(client, tmp_path, holder="runner/a").describe(RepoSource(repo_id="org/m"))
    assert caught.value.reason is Reason.REPO_NOT_FOUND
    assert caught.value.resource == "org/m"
    assert caught.value.fields == (FieldViolation("spec.repo.repo_id", "not there"),)


async def test_pins_are_told_whole_after_every_change(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        snapshots = RegistrySnapshots(it.client, it.hub, holder="runner/a")
        told = snapshots.held()
        assert await anext(told) == ()
        found = await snapshots.fetch(want(repo, "one"), ignore)
        assert await anext(told) == (Held(holder="one"),)
        await RegistrySnapshots(it.client, it.hub, holder="runner/b").fetch(want(repo, "theirs"), ignore)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(it.client.delete_snapshot, found.name, force=True, timeout=30.0))
            assert await anext(told) == (Held(holder="one", wanted_back=True),)
            await snapshots.release("one")
            assert await anext(told) == ()
            await RegistrySnapshots(it.client, it.hub, holder="runner/b").release("theirs")
        await told.aclose()  # type: ignore[attr-defined]


async def test_who_says_no_is_not_waited_for(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        snapshots = RegistrySnapshots(it.client, it.hub, holder="runner/a")
        found = await snapshots.fetch(want(repo, "one"), ignore)
        told = snapshots.held()
        assert await anext(told) == (Held(holder="one"),)

        async def say_no() -> None:
            assert await anext(told) == (Held(holder="one", wanted_back=True),)
            await snapshots.refuse(want(repo, "one"), "it stays")

        for _ in range(2):  # and it is asked again each time
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say_no)
                with anyio.fail_after(30), pytest.raises(Conflict) as refused:
                    await it.client.delete_snapshot(found.name, force=True, timeout=600.0)
            assert "runner/a" in refused.value.text
            assert refused.value.text.endswith("has not let go: it stays.")
            assert await anext(told) == (Held(holder="one"),)
            assert await anext(told) == (Held(holder="one"),)
        await told.aclose()  # type: ignore[attr-defined]


async def test_files_that_come_late_on_a_network_mount_are_waited_for(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    monkeypatch.setattr("slipway_runner.rpc.mount.INTERVAL", 0.05)
    async with served(tmp_path, hub.endpoint) as it:
        late = tmp_path / "late"
        (late / ".locks").mkdir(parents=True)
        (late / ".locks" / "slipway-owner.json").write_bytes((it.hub / ".locks" / "slipway-owner.json").read_bytes())
        looks = 0
        sees = mount._sees

        def mounted_late(root: Path, pinned: PinSnapshotResponse) -> bool:
            nonlocal looks
            looks += 1
            if looks == 3:
                (late / "models--org--m").symlink_to(it.hub / "models--org--m")
            return sees(root, pinned)

        monkeypatch.setattr(mount, "_sees", mounted_late)
        found = await RegistrySnapshots(it.client, late, holder="runner/a").fetch(want(repo, "one"), ignore)
        assert (found.root / "model-Q4_K_M.gguf").is_file()
        assert looks == 3


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_what_a_network_mount_does_not_show_yet_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def stat(*_: object, **__: object) -> None:
        raise OSError(code, "not yet")

    pinned = PinSnapshotResponse()
    pinned.manifest.add(path="a", size_bytes=1)
    monkeypatch.setattr(Path, "stat", stat)
    assert not mount._sees(tmp_path, pinned)


async def test_a_registry_that_goes_away_during_a_fetch_is_told_once(tmp_path: Path) -> None:
    fake, rest = pulling(download("RUNNING", 1)), pulling(download("RUNNING", 2), download("SUCCEEDED", 3))
    fake.answers["CreateDownload"].download.message = "waits for slot"  # type: ignore[union-attr]
    away = Failure(grpc.StatusCode.UNAVAILABLE)
    [began], [ended] = fake.streams["WatchDownloads"], rest.streams["WatchDownloads"]
    fake.streams["WatchDownloads"] = [[*began, away], [away], ended]
    fake.answers["PinSnapshot"] = Failure(grpc.StatusCode.NOT_FOUND, reason="SNAPSHOT_NOT_FOUND")
    source = RepoSource(repo_id="org/m", revision="main")
    wanted = Want(source=source, commit="c" * 40, variant="Q4_K_M", files=(), holder="one")
    told: list[Fetching] = []
    async with serving(fake), Registry.connect(fake.address, backoff=Backoff(draw=lambda: 0.0)) as client:
        with pytest.raises(Fault):
            await RegistrySnapshots(client, tmp_path, holder="runner/a").fetch(wanted, told.append)
    assert [(now.done_bytes, now.detail) for now in told] == [
        (0, "download waits for slot"),
        (1, ""),
        (1, "the registry does not answer; going on when it is back"),
        (2, ""),
        (3, ""),
    ]


@pytest.mark.parametrize(
    ("state", "excused"),
    [("QUEUED", True), ("BACKING_OFF", True), ("PAUSED", True), ("RUNNING", False), ("VERIFYING", False)],
)
async def test_a_download_that_waits_is_excused_for_its_silence_until_the_registry_goes_away(
    tmp_path: Path, state: str, excused: bool
) -> None:
    fake, rest = pulling(download(state, 1)), pulling(download("SUCCEEDED", 3))
    [began], [ended] = fake.streams["WatchDownloads"], rest.streams["WatchDownloads"]
    fake.streams["WatchDownloads"] = [[*began, Failure(grpc.StatusCode.UNAVAILABLE)], ended]
    fake.answers["PinSnapshot"] = Failure(grpc.StatusCode.NOT_FOUND, reason="SNAPSHOT_NOT_FOUND")
    source = RepoSource(repo_id="org/m", revision="main")
    wanted = Want(source=source, commit="c" * 40, variant="Q4_K_M", files=(), holder="one")
    told: list[Fetching] = []
    async with serving(fake), Registry.connect(fake.address, backoff=Backoff(draw=lambda: 0.0)) as client:
        with pytest.raises(Fault):
            await RegistrySnapshots(client, tmp_path, holder="runner/a").fetch(wanted, told.append)
    assert [now.paused for now in told if now.done_bytes == 1] == [excused, False]


async def test_a_registry_that_is_away_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    async with Registry.connect("127.0.0.1:1") as client:
        await RegistrySnapshots(client, tmp_path, holder="runner/a").release("one")
