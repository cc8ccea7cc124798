"""The registry as the fleet needs it: what a repository holds, and its files on this host."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import structlog
from anyio import to_thread
from slipway.common.v1 import variant_pb2
from slipway.registry.v1 import download_pb2
from slipway.registry.v1.selection_pb2 import Selection
from slipway.registry.v1.snapshot_service_pb2 import PinSnapshotResponse
from slipway_client import Registry, SlipwayError, select
from slipway_service.fault import Fault, Link, Precondition, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

from slipway_runner.models.snapshots import Description, Fetching, Snapshot, Want
from slipway_runner.models.spec import RepoSource

_log = structlog.get_logger(__name__)

MOUNT_PATIENCE = 90.0
"""Seconds after which an NFS client shows new files: it keeps what it knows of directories for 60 at most (nfs(5))."""

_MOUNT_INTERVAL = 1.0

_AWAY = "the registry does not answer; going on when it is back"


class RegistrySnapshots:
    """Snapshots through the registry's gRPC services.

    Args:
        registry: its client.
        hub: where this host has mounted the hub cache that the registry fills.
        holder: who holds the pins that are taken here; a model's uid is the claim.
        patience: seconds to wait until this host sees what the registry has written.
    """

    def __init__(
        self, registry: Registry, hub: Path, *, holder: str | None = None, patience: float = MOUNT_PATIENCE
    ) -> None:
        self._registry = registry
        self._hub = hub
        self._holder = holder or f"runner/{socket.gethostname()}"
        self._patience = patience

    async def describe(self, source: RepoSource) -> Description:
        """The repository's files at the commit that its revision names.

        Raises:
            Fault: the registry's reasons, REGISTRY_UNAVAILABLE.
        """
        with _faults(self._registry):
            repo = await self._registry.get_repo(source.repo_id, source.revision)
            files = list(repo.files)
            if len(files) < repo.file_count:
                files = await self._registry.list_repo_files(source.repo_id, repo.commit)
        return Description(
            name=repo.repo_id,
            commit=repo.commit,
            files=tuple(map(_repo_file, files)),
            pipeline_tag=repo.summary.pipeline_tag,
            architecture=repo.config.architecture,
            remote_code=repo.config.remote_code,
        )

    async def fetch(self, want: Want, report: Callable[[Fetching], None]) -> Snapshot:
        """Have the variant downloaded, hold it for the one who wants it, and find it in the cache of this host.

        Raises:
            Fault: the download's reason; REGISTRY_UNAVAILABLE; CACHE_NOT_SHARED, it is not where the registry put it.
        """
        fetch = _Fetch(report)
        with _faults(self._registry):
            pull = self._registry.pull(
                want.source.repo_id, want.commit, selection=_selection(want), on_disconnect=fetch.lost
            )
            async for download in pull:
                fetch.tell(_fetching(download))
        pinned = await self._pin(want)
        await self._check_mount(want, pinned)
        return Snapshot(root=self._hub / pinned.snapshot_path, name=pinned.pin.snapshot)

    async def renew(self, want: Want) -> None:
        """Have the pin last for its whole time again; one that has ended meanwhile is taken anew.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND or SNAPSHOT_INCOMPLETE, the files were deleted; REGISTRY_UNAVAILABLE.
        """
        await self._pin(want)

    async def release(self, holder: str) -> None:
        """End the pins of a model, by its uid. A registry that is away does not matter: they end by themselves."""
        try:
            for pin in await self._registry.list_pins(holder=self._holder):
                if pin.claim == holder:
                    await self._registry.unpin_snapshot(pin.name)
        except SlipwayError as error:
            _log.warning("pin not released", uid=holder, error=str(error))

    async def _pin(self, want: Want) -> PinSnapshotResponse:
        with _faults(self._registry):
            return await self._registry.pin_snapshot(
                want.source.repo_id,
                want.commit,
                holder=self._holder,
                claim=want.holder,
                selection=_selection(want),
            )

    async def _check_mount(self, want: Want, pinned: PinSnapshotResponse) -> None:
        """Raises CACHE_NOT_SHARED if this host does not see what the registry has pinned, soon."""
        root = self._hub / pinned.snapshot_path
        with anyio.move_on_after(self._patience):
            while not (seen := await to_thread.run_sync(_sees, root, pinned)):
                if await to_thread.run_sync(_cache_id, self._hub) != pinned.cache_id:
                    break
                await anyio.sleep(_MOUNT_INTERVAL)
            if seen:
                return
        raise Fault(
            Reason.CACHE_NOT_SHARED,
            f"the registry has put {want.source.repo_id} at {pinned.snapshot_path} of its cache, but {root} does not "
            "show it: mount the registry's cache on this host and set HF_HUB_CACHE to it",
        )


class _Fetch:
    """Tells how far a fetch is, and that the registry is away: once, so that retrying is not taken for progress."""

    def __init__(self, report: Callable[[Fetching], None]) -> None:
        self._report = report
        self._last = Fetching(done_bytes=0, total_bytes=0)

    def tell(self, now: Fetching) -> None:
        self._last = now
        self._report(now)

    def lost(self, error: SlipwayError, delay: float) -> None:
        if self._last.detail != _AWAY:
            self.tell(replace(self._last, detail=_AWAY))


def _selection(want: Want) -> Selection:
    return select(variant=want.variant) or Selection()


def _sees(root: Path, pinned: PinSnapshotResponse) -> bool:
    """Whether every pinned file is there with its size. A network file system may be late (ENOENT, ESTALE)."""
    try:
        return all((root / entry.path).stat().st_size == entry.size_bytes for entry in pinned.manifest)
    except OSError:
        return False


def _cache_id(hub: Path) -> str:
    """What the registry has written into its cache to tell it from others; empty where there is nothing."""
    try:
        return str(json.loads((hub / ".locks" / "slipway-owner.json").read_bytes())["cache_id"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


@contextmanager
def _faults(registry: Registry) -> Iterator[None]:
    """Let errors of the registry pass on as faults with the same reason."""
    try:
        yield
    except SlipwayError as error:
        if error.reason not in Reason.__members__ or error.reason == Reason.DRAINING:
            text = f"the registry at {registry.connection.address} does not answer: {error.text}"
            raise Fault(Reason.REGISTRY_UNAVAILABLE, text, retry_after=error.retry_after or 5.0) from error
        raise Fault(
            Reason(error.reason),
            error.text,
            facts=error.facts,
            retry_after=error.retry_after,
            preconditions=tuple(Precondition(it.type, it.subject, it.description) for it in error.preconditions),
            link=next((Link(it.description, it.url) for it in error.help), None),
        ) from error


def _repo_file(message: variant_pb2.RepoFile) -> RepoFile:
    return RepoFile(
        path=FilePath.parse(message.path),
        size_bytes=message.size_bytes,
        blob_id=message.blob_id,
        lfs=message.lfs,
        xet_hash=message.xet_hash,
    )


def _fetching(download: download_pb2.Download) -> Fetching:
    state = download.state
    moving = state in (download_pb2.DOWNLOAD_STATE_RUNNING, download_pb2.DOWNLOAD_STATE_SUCCEEDED)
    return Fetching(
        done_bytes=download.progress.done_bytes,
        total_bytes=download.progress.total_bytes,
        paused=state == download_pb2.DOWNLOAD_STATE_PAUSED,
        detail="" if moving else f"download {download.message}",
    )
