"""Every arrow of the DownloadState table, taken by an engine at work and seen by those who watch."""

import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from slipway.registry.v1.download_pb2 import DownloadState
from slipway_registry.cache.publish import Publisher
from slipway_registry.hub.credentials import Credential, Credentials
from slipway_registry.jobs import obtain, states
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.records import Download, State
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.hashing import follow
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Corrupt, Fault, HoldAfter, Status
from tests.hub.repos import Repo
from tests.integration.registry.engines import PATIENCE, PATIENT, QUICK, Bench, engine_in

pytestmark = pytest.mark.anyio

MIB = 1 << 20
QUEUE = QueueSettings(jobs=1, progress_interval=0.02, disk_interval=0.05, housekeeping_interval=600.0)
STAYS_AWAY = replace(QUICK, away_base=600.0, away_cap=600.0)
Arrow = tuple[State, type[states.Event]]


@dataclass
class World:
    """A Hub with a model, engines one after the other in one place, and the arrows that they took."""

    hub: HubEmulator
    directory: Path
    patch: pytest.MonkeyPatch
    repo: Repo
    taken: list[Arrow] = field(default_factory=list)

    def engine(self, **changes: Any) -> AbstractAsyncContextManager[Bench]:
        return engine_in(self.directory, self.hub.endpoint, queue=QUEUE, **PATIENT, **changes)

    def fault(self, fault: Fault, path: str = "model.gguf", **options: Any) -> None:
        self.hub.faults.add(fault, path, **options)

    def hold(self, path: str) -> HoldAfter:
        """Answer requests for it only when that is released."""
        self.fault(held := HoldAfter(), path)
        return held

    def leave_as_killed(self, download_id: str, state: State) -> None:
        """The records as a process leaves them that is killed in this state."""
        store = Store.in_directory(self.directory / "state")
        store.save(replace(store.get(download_id), state=state))
        store.close()


@pytest.fixture
def world(hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    hub.add_user("ann", "hf_ann")
    repo = hub.add_repo("org/m", {"model.gguf": Random(2 * MIB), "config.json": b"{}"})
    made = World(hub, tmp_path, monkeypatch, repo)
    step = states.step

    def watched_step(download: Download, event: states.Event, at: Any) -> Download:
        after = step(download, event, at)
        made.taken.append((download.state, type(event)))
        return after

    monkeypatch.setattr(states, "step", watched_step)
    return made


# -- a download that stays in a state


@contextmanager
def hashing_held(world: World) -> Iterator[None]:
    """What another program has put into the cache is being hashed, and never done."""
    blobs = RepoPaths(world.directory / "hub", RepoId(world.repo.id)).blobs
    blobs.mkdir(parents=True)
    for file in world.repo.head.files.values():
        (blobs / file.etag).write_bytes(file.blob.path.read_bytes())

    def held(path: Path, _etag: str, _core: object, halt: Halt, _add: object) -> str:
        never = threading.Event()
        with halt.waking(never.set):
            never.wait()
        halt.check()
        raise AssertionError(path)

    with world.patch.context() as patch:
        patch.setattr(obtain, "hash_file", held)
        yield


@asynccontextmanager
async def held_in(world: World, state: State, credential: Credential | None = None) -> AsyncIterator[tuple[Bench, str]]:
    """An engine with a download that does not leave the state by itself."""
    held = nullcontext() if state is not State.VERIFYING else hashing_held(world)
    with held:  # for longer than the engine is at work
        async with world.engine(policy=STAYS_AWAY) as bench:
            hold = None
            match state:
                case State.QUEUED:
                    world.hold("org/other")
                    await bench.create(world.hub.add_repo("org/other", {"config.json": b"{}"}))
                case State.BACKING_OFF:
                    world.fault(Status(503))
                case State.RUNNING | State.PAUSED:
                    hold = world.hold("model.gguf")
            created = await bench.create(world.repo, credential=credential)
            if state is State.PAUSED and hold:
                await bench.scheduler.pause(created.id)
                hold.release()
            await bench.told.state(created.id, state)
            yield bench, created.id
    world.hub.faults.clear()


async def paused(world: World, state: State) -> None:
    async with held_in(world, state) as (bench, download_id):
        await bench.scheduler.pause(download_id)
        check(world, bench, (state, states.Paused))


async def cancelled(world: World, state: State) -> None:
    async with held_in(world, state) as (bench, download_id):
        await bench.scheduler.cancel(download_id)
        check(world, bench, (state, states.Cancelled))


async def interrupted(world: World, state: State) -> None:
    async with held_in(world, state):
        pass
    async with world.engine() as bench:
        check(world, bench, (state, states.Interrupted))
        (download,) = await bench.scheduler.page(limit=1)
        assert (await bench.told.end(download.id)).state is State.SUCCEEDED


async def robbed(world: World, state: State) -> None:
    """Killed while it lived on a caller's token."""
    caller = Credentials().of_call("hf_ann")
    async with held_in(world, state, caller) as (_, download_id):
        pass
    world.leave_as_killed(download_id, state)
    async with world.engine() as bench:
        check(world, bench, (state, states.CredentialLost))
        await bench.scheduler.resume(download_id, credential=caller)
        assert (await bench.told.end(download_id)).state is State.SUCCEEDED


# -- what happens by itself


async def straight(world: World, arrow: Arrow) -> None:
    async with world.engine() as bench:
        assert (await bench.fetch(world.repo)).state is State.SUCCEEDED
        check(world, bench, arrow)


async def waits_for_a_slot(world: World, arrow: Arrow) -> None:
    async with held_in(world, State.QUEUED) as (bench, download_id):
        await bench.scheduler.pause(download_id)
        world.patch.setattr(bench.scheduler._queue, "_held_until", float("inf"))
        await bench.scheduler.resume(download_id)
        await bench.told.until_download(download_id, lambda found: found.waiting_for == "HUB_RATE")
        check(world, bench, arrow)


async def can_never_fit(world: World, arrow: Arrow) -> None:
    small = SimpleNamespace(f_bavail=1, f_blocks=1, f_frsize=4096)
    async with world.engine() as bench:
        with world.patch.context() as patch:
            patch.setattr(os, "statvfs", lambda _: small)
            assert (await bench.fetch(world.repo)).state is State.FAILED
        check(world, bench, arrow)


async def set_back(world: World, arrow: Arrow) -> None:
    world.fault(Status(503), times=8)
    async with world.engine() as bench:
        assert (await bench.fetch(world.repo)).state is State.SUCCEEDED
        check(world, bench, arrow)


async def given_up(world: World, arrow: Arrow) -> None:
    world.fault(Status(503))
    async with world.engine(policy=replace(QUICK, away_patience=0.05)) as bench:
        assert (await bench.fetch(world.repo)).state is State.FAILED
        check(world, bench, arrow)


async def refused(world: World, arrow: Arrow) -> None:
    world.fault(Status(404, headers={"X-Error-Code": "EntryNotFound"}))
    async with world.engine() as bench:
        assert (await bench.fetch(world.repo)).state is State.FAILED
        check(world, bench, arrow)


async def disk_fills(world: World, arrow: Arrow) -> None:
    pwrite, full = os.pwrite, [True]

    def failing(fd: int, data: memoryview, offset: int) -> int:
        if full and os.fstat(fd).st_size == 2 * MIB:  # the model
            full.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    async with world.engine() as bench:
        with world.patch.context() as patch:
            patch.setattr(os, "pwrite", failing)
            assert (await bench.fetch(world.repo)).state is State.SUCCEEDED
        check(world, bench, arrow)


async def wrong_while_others_come(world: World, arrow: Arrow) -> None:
    world.fault(Corrupt(offset=5), "cdn/", origin="cdn", times=1)
    hold = world.hold("config.json")
    async with world.engine() as bench:
        created = await bench.create(world.repo)
        await bench.told.until_download(created.id, lambda found: found.mismatches == 1)
        check(world, bench, arrow)
        hold.release()
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def wrong(world: World, arrow: Arrow) -> None:
    """Its hash is known when everything has been fetched."""
    world.fault(Corrupt(offset=5), "cdn/", origin="cdn", times=1)
    fetched = threading.Event()

    def late(*arguments: Any) -> str:
        digest = follow(*arguments)
        assert fetched.wait(PATIENCE)
        return digest

    world.patch.setattr("slipway_registry.transfer.engine.follow", late)
    async with world.engine() as bench:
        created = await bench.create(world.repo)
        await bench.told.state(created.id, State.VERIFYING)
        fetched.set()
        assert (await bench.told.end(created.id)).mismatches == 1
        check(world, bench, arrow)


def publishing(error: Callable[[Bench, Repo], None], last: State) -> Callable[[World, Arrow], Awaitable[None]]:
    """The first attempt to publish meets an error, and the download ends so."""

    async def scenario(world: World, arrow: Arrow) -> None:
        publish, first = Publisher.publish, [True]
        async with world.engine() as bench:

            def failing(*arguments: Any) -> None:
                if first:
                    first.clear()
                    error(bench, world.repo)
                publish(*arguments)

            with world.patch.context() as patch:
                patch.setattr(Publisher, "publish", failing)
                assert (await bench.fetch(world.repo)).state is last
            check(world, bench, arrow)

    return scenario


def blob_goes(bench: Bench, repo: Repo) -> None:
    (bench.paths(repo).blobs / repo.head.files["model.gguf"].etag).unlink()


def fills(_: Bench, __: Repo) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def goes_read_only(_: Bench, __: Repo) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def resumed(world: World, arrow: Arrow) -> None:
    async with held_in(world, State.PAUSED) as (bench, download_id):
        await bench.scheduler.resume(download_id)
        check(world, bench, arrow)
        assert (await bench.told.end(download_id)).state is State.SUCCEEDED


BY_EVENT: dict[type[states.Event], Callable[[World, State], Awaitable[None]]] = {
    states.Paused: paused,
    states.Cancelled: cancelled,
    states.Interrupted: interrupted,
    states.CredentialLost: robbed,
}
BY_ARROW: dict[Arrow, Callable[[World, Arrow], Awaitable[None]]] = {
    (State.QUEUED, states.Waits): waits_for_a_slot,
    (State.QUEUED, states.Granted): straight,
    (State.QUEUED, states.Failed): can_never_fit,
    (State.RUNNING, states.Fetched): straight,
    (State.RUNNING, states.SetBack): set_back,
    (State.RUNNING, states.DiskFilled): disk_fills,
    (State.RUNNING, states.Mismatched): wrong_while_others_come,
    (State.RUNNING, states.Failed): refused,
    (State.BACKING_OFF, states.Due): set_back,
    (State.BACKING_OFF, states.Failed): given_up,
    (State.VERIFYING, states.Mismatched): wrong,
    (State.VERIFYING, states.Lost): publishing(blob_goes, State.SUCCEEDED),
    (State.VERIFYING, states.DiskFilled): publishing(fills, State.SUCCEEDED),
    (State.VERIFYING, states.Failed): publishing(goes_read_only, State.FAILED),
    (State.VERIFYING, states.Published): straight,
    (State.PAUSED, states.Resumed): resumed,
}


def check(world: World, bench: Bench, arrow: Arrow) -> None:
    """The engine took the arrow, and the log that callers watch shows it."""
    assert arrow in world.taken
    watched = [download.state for download in bench.told.watched() if download.repo_id == world.repo.id]
    seen = [State(DownloadState.Name(state).removeprefix("DOWNLOAD_STATE_")) for state in watched]
    assert (arrow[0], states.TABLE[arrow]) in pairwise(seen)


@pytest.mark.parametrize("arrow", states.TABLE, ids=lambda arrow: f"{arrow[0]}-{arrow[1].__name__}")
async def test_every_arrow_is_taken_and_watched(world: World, arrow: Arrow) -> None:
    state, event = arrow
    if scenario := BY_ARROW.get(arrow):
        await scenario(world, arrow)
    else:
        await BY_EVENT[event](world, state)
