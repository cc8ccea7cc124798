"""How a runner holds what it runs from."""

from pathlib import Path

import grpc
import pytest
from slipway_client import Registry
from slipway_client.backoff import Backoff
from slipway_runner.models.snapshots import Fetching, Want
from slipway_runner.models.spec import RepoSource
from slipway_runner.rpc.registry import RegistrySnapshots
from slipway_service.fault import Fault, Reason

from tests.hub.emulator import HubEmulator
from tests.hub.repos import Repo
from tests.integration.client.fakes import Failure, serving
from tests.integration.client.resources import download, pulling
from tests.integration.registry.snapshots.served import GGUFS, served

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


async def test_another_cache_is_told_from_a_late_mount(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        with pytest.raises(Fault) as caught:
            await RegistrySnapshots(it.client, tmp_path / "other").fetch(want(repo, "one"), ignore)
        assert caught.value.reason is Reason.CACHE_NOT_SHARED
        late = tmp_path / "late"
        (late / ".locks").mkdir(parents=True)
        (late / ".locks" / "slipway-owner.json").write_bytes((it.hub / ".locks" / "slipway-owner.json").read_bytes())
        with pytest.raises(Fault) as caught:
            await RegistrySnapshots(it.client, late, patience=0.1).fetch(want(repo, "one"), ignore)
        assert caught.value.reason is Reason.CACHE_NOT_SHARED


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
            await RegistrySnapshots(client, tmp_path).fetch(wanted, told.append)
    assert [(now.done_bytes, now.detail) for now in told] == [
        (0, "download waits for slot"),
        (1, ""),
        (1, "the registry does not answer; going on when it is back"),
        (2, ""),
        (3, ""),
    ]


async def test_a_registry_that_is_away_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    async with Registry.connect("127.0.0.1:1") as client:
        await RegistrySnapshots(client, tmp_path).release("one")
