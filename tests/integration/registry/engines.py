"""A download engine in this process, against an emulated Hub."""

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from slipway.registry.v1 import download_pb2
from slipway.registry.v1.download_service_pb2 import WatchDownloadsResponse
from slipway_registry.cache.layout import Modes
from slipway_registry.hub.credentials import ANONYMOUS, Credential
from slipway_registry.hub.rate import RateBudget
from slipway_registry.jobs.assemble import Engine, EngineSettings, download_engine
from slipway_registry.jobs.clock import Clock
from slipway_registry.jobs.queue import QueueSettings
from slipway_registry.jobs.records import Download, Progress, State
from slipway_registry.jobs.requests import CreateRequest
from slipway_registry.jobs.retry import RetryPolicy
from slipway_registry.jobs.scheduler import Scheduler
from slipway_registry.jobs.store import Entry, Store
from slipway_registry.rpc.download_log import DownloadLog
from slipway_registry.transfer.wire import WireSettings
from slipway_registry.transfer.xet import XetSettings
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

if TYPE_CHECKING:  # the processes that are killed by the dozen need no Hub, which takes a third of their start
    from tests.hub.repos import Commit as HubCommit
    from tests.hub.repos import Repo

# Seconds; every wait in these tests is for something that takes a small part of it.
PATIENCE = 60.0

# Nothing waits long on its own: what is asserted is what happens, not when.
QUICK = RetryPolicy(
    part_base=0.01,
    part_cap=0.02,
    part_tries=3,
    part_patience=0.5,
    job_delays=(0.01, 0.02, 0.03),
    away_base=0.02,
    away_cap=0.05,
)

# Settings of an engine that never gives up what stands still: a fault holds it as long as the test says, however slow
# the machine is.
PATIENT: Mapping[str, Any] = {
    "wire": WireSettings(stall_timeout=600.0),
    "xet": XetSettings(stall_timeout=600.0, buffer_bytes=64_000_000),
}


@dataclass(slots=True)
class Recorder:
    """Everything the engine told, the log that callers watch, and a way to wait for it."""

    log: DownloadLog
    entries: list[Entry] = field(default_factory=list)
    progress_of: dict[str, list[Progress]] = field(default_factory=dict)
    _told: anyio.Event = field(default_factory=anyio.Event)

    def transition(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.log.transition(entry)
        self._wake()

    def progress(self, download: Download, progress: Progress) -> None:
        self.progress_of.setdefault(download.id, []).append(progress)
        self.log.progress(download, progress)
        self._wake()

    def watched(self) -> list[download_pb2.Download]:
        """Every transition that the log has, also of earlier engines, as watchers are sent it."""
        batch = WatchDownloadsResponse.FromString(b"".join(entry.event for entry in self.log.log.after(0)))
        return [event.download for event in batch.events]

    def states(self, download_id: str) -> list[State]:
        """The download's states in order."""
        return [entry.download.state for entry in self.entries if entry.download and entry.uid == download_id]

    def downloads(self, download_id: str) -> list[Download]:
        """The download after each of its transitions."""
        return [entry.download for entry in self.entries if entry.download and entry.uid == download_id]

    async def until(self, condition: Callable[[], bool], patience: float | None = PATIENCE) -> None:
        """Wait until something told makes the condition true."""
        with anyio.fail_after(patience):
            while not condition():
                await self._told.wait()

    async def news(self, patience: float | None = PATIENCE) -> None:
        """Wait until anything more is told."""
        seen = len(self.entries) + sum(map(len, self.progress_of.values()))
        await self.until(lambda: len(self.entries) + sum(map(len, self.progress_of.values())) > seen, patience)

    async def state(self, download_id: str, *wanted: State) -> Download:
        """Wait until the download is, or has been since, in one of these states; the download at that moment."""
        found: list[Download] = []

        def seen() -> bool:
            found[:] = [item for item in self.downloads(download_id) if item.state in wanted]
            return bool(found)

        await self.until(seen)
        return found[-1]

    async def until_download(self, download_id: str, condition: Callable[[Download], bool]) -> Download:
        """Wait until a transition leaves the download as the condition has it; the download at that moment."""
        await self.until(lambda: any(map(condition, self.downloads(download_id))))
        return next(item for item in reversed(self.downloads(download_id)) if condition(item))

    async def end(self, download_id: str) -> Download:
        """Wait until it is over."""
        return await self.state(download_id, State.SUCCEEDED, State.FAILED, State.CANCELLED)

    async def some_bytes(self, download_id: str, count: int = 1) -> Progress:
        """Wait until that many bytes have been seen."""
        await self.until(lambda: any(p.done_bytes >= count for p in self.progress_of.get(download_id, [])))
        return self.progress_of[download_id][-1]

    def _wake(self) -> None:
        told, self._told = self._told, anyio.Event()
        told.set()


@dataclass(slots=True, kw_only=True)
class Bench:
    """An engine at work, what it told, and where its cache is."""

    engine: Engine[Recorder]
    told: Recorder
    hub_cache: Path

    @property
    def scheduler(self) -> Scheduler:
        return self.engine.scheduler

    @property
    def store(self) -> Store:
        return self.engine.store

    def paths(self, repo: "Repo | str") -> RepoPaths:
        return RepoPaths(self.hub_cache, RepoId(repo if isinstance(repo, str) else repo.id))

    def snapshot(self, repo: "Repo", commit: str | None = None) -> Path:
        return self.paths(repo).snapshot(Commit(commit or repo.head.id))

    async def create(self, repo: "Repo", **fields: Any) -> Download:
        """Create a download; see `request`."""
        return (await self.scheduler.create(request(repo, **fields)))[0]

    async def fetch(self, repo: "Repo", **fields: Any) -> Download:
        """Create a download and wait for its end."""
        created = await self.create(repo, **fields)
        return created if created.state.terminal else await self.told.end(created.id)


def listing_of(commit: "HubCommit") -> tuple[RepoFile, ...]:
    """A commit's files, as the gateway would list them."""
    return tuple(
        RepoFile(
            path=str.__new__(FilePath, file.path),  # unchecked, so that tests can be hostile
            size_bytes=file.size,
            blob_id=file.etag,
            lfs=file.lfs,
            xet_hash=file.xet_hash or "",
        )
        for file in commit.files.values()
    )


def request(
    repo: "Repo",
    *,
    revision: str = "main",
    commit: str | None = None,
    paths: Sequence[str] | None = None,
    credential: Credential | None = None,
) -> CreateRequest:
    """A request for (some) files of a repository."""
    found = repo.commits[commit] if commit else repo.head
    listing = listing_of(found)
    return CreateRequest(
        repo=RepoId(repo.id),
        revision=Revision(revision),
        commit=Commit(found.id),
        listing=listing,
        paths=list(paths) if paths is not None else [file.path for file in listing],
        selection={"everything": True},
        credential=credential,
    )


def settings_for(directory: Path, endpoint: str, **changes: Any) -> EngineSettings:
    """Settings for an engine whose state and cache are in `directory`."""
    usual = EngineSettings(
        state_directory=directory / "state",
        hub=directory / "hub",
        endpoint=endpoint,
        modes=Modes(file=0o644, directory=0o755),
        disk_reserve=0,
        policy=QUICK,
        wire=WireSettings(stall_timeout=1.0, connect_timeout=5.0),
        xet=XetSettings(stall_timeout=1.0, tries=1, buffer_bytes=64_000_000),
        queue=QueueSettings(progress_interval=0.02, disk_interval=0.05, housekeeping_interval=600.0),
    )
    return replace(usual, **changes)


@asynccontextmanager
async def engine_in(
    directory: Path,
    endpoint: str,
    *,
    credential: Credential = ANONYMOUS,
    quota: RateBudget | None = None,
    boot: uuid.UUID | None = None,
    clock: Clock | None = None,
    **changes: Any,
) -> AsyncIterator[Bench]:
    """An engine whose state and cache are in `directory`; `changes` are of EngineSettings."""
    settings = settings_for(directory, endpoint, **changes)
    async with download_engine(
        settings,
        credential=lambda: credential,
        quota=quota or RateBudget(),
        listener=lambda store: Recorder(DownloadLog(store, retention=settings.queue.retention)),
        boot=boot,
        clock=clock,
    ) as engine:
        yield Bench(engine=engine, told=engine.listener, hub_cache=settings.hub)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
