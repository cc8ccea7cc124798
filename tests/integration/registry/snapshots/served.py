"""A registry in this process, served over gRPC, against an emulated Hub."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from slipway.registry.v1 import download_pb2, snapshot_pb2
from slipway.registry.v1.selection_pb2 import Selection
from slipway_client import Registry, SlipwayError
from slipway_registry.app import registry
from slipway_registry.config import RegistrySettings
from slipway_service import lifecycle
from slipway_service.lifecycle import Host, Stop
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import RepoId

from tests.hub.content import Random, Source
from tests.hub.repos import Repo

PATIENCE = 60.0
"""Seconds that any single wait of a test may take before it has failed."""

KIB = 1 << 10

GGUFS: Mapping[str, Source] = {
    "config.json": b"{}",
    "README.md": b"read me",
    "model-Q4_K_M.gguf": Random(64 * KIB, 1),
    "model-Q8_0.gguf": Random(128 * KIB, 2),
}
EVERYTHING = Selection(everything=True)
Q4 = Selection(variant="Q4_K_M")
Q8 = Selection(variant="Q8_0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The registry's client, and its cache on the disk."""

    client: Registry
    hub: Path
    address: str

    def paths(self, repo: Repo | str) -> RepoPaths:
        return RepoPaths(self.hub, RepoId(repo if isinstance(repo, str) else repo.id))

    async def pull(
        self, repo: Repo | str, selection: Selection = EVERYTHING, revision: str = "main"
    ) -> download_pb2.Download:
        """Download, and return the download once it has succeeded."""
        repo_id = repo if isinstance(repo, str) else repo.id
        with anyio.fail_after(PATIENCE):
            told = [it async for it in self.client.pull(repo_id, revision, selection=selection)]
        assert told[-1].state == download_pb2.DOWNLOAD_STATE_SUCCEEDED
        return told[-1]

    async def snapshot(self, repo: Repo | str, revision: str = "main") -> snapshot_pb2.Snapshot:
        repo_id = repo if isinstance(repo, str) else repo.id
        return (await self.client.get_snapshot(repo_id=repo_id, revision=revision)).snapshot

    async def listed(self, until: Callable[[list[snapshot_pb2.Snapshot]], bool]) -> list[snapshot_pb2.Snapshot]:
        """What is listed once it is as it should be; the index follows other programs in its own time."""
        with anyio.fail_after(PATIENCE):
            while not until(found := await self.client.list_snapshots()):  # noqa: ASYNC110
                await anyio.sleep(0.02)  # nothing tells when a list has changed
        return found


@asynccontextmanager
async def served(directory: Path, endpoint: str, **options: Any) -> AsyncIterator[Served]:
    """Serve a registry whose state and cache are in `directory` until the block ends."""
    settings = RegistrySettings(
        **{
            "state_dir": directory / "state",
            "listen": "127.0.0.1:0",
            "metrics_listen": "127.0.0.1:0",
            "drain_grace": 0.0,
            "disk_reserve": 0,
            "rescan_interval": 0.05,
            **options,
        }
    )
    environment = {"HF_HOME": str(directory / "home"), "HF_ENDPOINT": endpoint, "HOME": str(directory)}
    stop = Stop()

    def opener(host: Host) -> Any:
        return registry(host, settings, environment)

    async with anyio.create_task_group() as tasks:

        async def serve(*, task_status: anyio.abc.TaskStatus[Host]) -> None:
            await lifecycle.serve(settings, opener, stop=stop, task_status=task_status)

        with anyio.fail_after(PATIENCE):
            host = await tasks.start(serve)
        try:
            async with Registry.connect(str(host.address)) as client:
                yield Served(client=client, hub=directory / "home" / "hub", address=str(host.address))
        finally:
            stop.ask()


async def reason_of(call: Any) -> SlipwayError:
    """The error that a call ends with."""
    try:
        await call
    except SlipwayError as error:
        return error
    raise AssertionError("no error")
