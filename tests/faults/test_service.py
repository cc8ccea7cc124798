"""The registry as it is in production, killed and stopped: what its callers see, and who else may work beside it."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1.download_pb2 import Download, DownloadState
from slipway_client import Registry
from slipway_client.events import Changed, Reset

from tests.e2e.stack import BIN, WAIT_SECONDS, Service, Stack
from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SIZE = 32 * MIB
# What a kill may cost over http: what connections had received and not written.
ALLOWED = 8 * MIB


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """grpc.aio has one completion queue for all loops: what comes after a test must not find its loop closed."""
    yield  # noqa: PT022 - a fixture that yields keeps the loop


@pytest.fixture
def service(hub: HubEmulator, tmp_path: Path) -> Iterator[Service]:
    """A registry that is not started yet."""
    made = Stack(tmp_path, hub.endpoint, "--disk-reserve=0", "--drain-grace=0").registry
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


async def replayed(client: Registry, after: Cursor) -> list[Download]:
    """Every transition behind the cursor, as a watcher that was away gets them."""
    found: list[Download] = []
    with anyio.fail_after(WAIT_SECONDS):
        async with client.watch_downloads(after=after) as watch:
            async for event in watch:
                assert not isinstance(event, Reset)
                if isinstance(event, Changed):
                    found.append(event.resource)
                    if event.resource.state == DownloadState.DOWNLOAD_STATE_SUCCEEDED:
                        return found
    raise AssertionError("the watch ended")


@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_a_watcher_that_was_away_misses_no_transition(hub: HubEmulator, service: Service, end: str) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(SIZE)})
    hold = HoldAfter(MIB)
    hub.faults.add(hold, origin="cdn")
    await to_thread.run_sync(service.start)
    async with Registry.connect(service.address) as client:
        created = await client.create_download(repo.id)
        await to_thread.run_sync(lambda: hub.journal.wait_for("/cdn/"))
    if end == "killed":
        service.kill()
    else:
        assert await to_thread.run_sync(service.stop) == 0
    hold.release()
    await to_thread.run_sync(service.start)  # nobody asks it to go on
    async with Registry.connect(service.address) as client:
        seen = await replayed(client, created.cursor)
    states = [DownloadState.Name(download.state).removeprefix("DOWNLOAD_STATE_") for download in seen]
    assert states == ["RUNNING", "QUEUED", "RUNNING", "VERIFYING", "SUCCEEDED"]
    etags = [int(download.etag, 16) for download in (created.download, *seen)]
    assert etags == list(range(etags[0], etags[0] + 6))
    assert {download.uid for download in seen} == {created.download.uid}
    exchanges = await to_thread.run_sync(lambda: hub.journal.over(origin="cdn"))
    again = sum(exchange.sent for exchange in exchanges) - SIZE
    assert again <= ALLOWED


@pytest.mark.parametrize("share", ["state", "cache"])
def test_a_second_registry_is_refused(service: Service, tmp_path: Path, share: str) -> None:
    service.start()
    state = service.state if share == "state" else tmp_path / "other"
    environment = dict(service.environment)
    if share == "state":
        environment["HF_HOME"] = str(tmp_path / "other cache")
    free = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
    second = subprocess.run(
        [BIN / "slipway-registry", "serve", "--state-dir", state, *free],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert second.returncode == 1
    said = second.stderr.splitlines()[-1]
    assert "in use by" in said
    assert str(service.state if share == "state" else tmp_path / "hf" / "hub") in said
    assert service.stop() == 0  # the first was not disturbed


async def test_fifty_callers_see_one_download_to_its_end(hub: HubEmulator, service: Service) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}", "model.gguf": Random(SIZE)})
    hold = HoldAfter(MIB)  # until each of them has seen it move
    hub.faults.add(hold, origin="cdn")
    await to_thread.run_sync(service.start)
    seen: list[list[Download]] = []
    moved = 0

    async def call(client: Registry) -> None:
        nonlocal moved
        versions: list[Download] = []
        seen.append(versions)
        async for download in client.pull(repo.id):
            if download.progress.done_bytes >= MIB and not any(one.progress.done_bytes >= MIB for one in versions):
                moved += 1
                if moved == 50:
                    hold.release()
            versions.append(download)

    async with Registry.connect(service.address) as client, anyio.create_task_group() as callers:
        for _ in range(50):
            callers.start_soon(call, client)
    assert len(seen) == 50
    assert len({versions[-1].uid for versions in seen}) == 1
    assert {versions[-1].state for versions in seen} == {DownloadState.DOWNLOAD_STATE_SUCCEEDED}
    for versions in seen:
        figures = [download.progress.done_bytes for download in versions]
        assert figures == sorted(figures)
        assert any(MIB <= done < SIZE for done in figures)
    assert sum(exchange.sent for exchange in hub.journal.requests(origin="cdn")) == SIZE
