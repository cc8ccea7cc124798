"""The registry as the fleet needs it: what a repository holds, and its files on this host."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog
from anyio import to_thread
from slipway.common.v1 import variant_pb2
from slipway.registry.v1 import download_pb2
from slipway.registry.v1.selection_pb2 import Selection
from slipway.registry.v1.snapshot_service_pb2 import PinSnapshotResponse
from slipway_client import Registry, Reset, SlipwayError, Synced, select
from slipway_service.fault import Fault, FieldViolation, Link, Precondition, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from slipway_runner.models import cached
from slipway_runner.models.snapshots import Description, Fetching, Held, Snapshot, Want
from slipway_runner.models.spec import RepoSource
from slipway_runner.rpc import mount
from slipway_runner.rpc.mount import wait_for_mount

_log = structlog.get_logger(__name__)

# Of a healthy download that does nothing: for a slot, for disk or the Hub, for a caller.
_WAITING = (
    download_pb2.DOWNLOAD_STATE_QUEUED,
    download_pb2.DOWNLOAD_STATE_BACKING_OFF,
    download_pb2.DOWNLOAD_STATE_PAUSED,
)

_AWAY = "the registry does not answer; going on when it is back"


class RegistrySnapshots:
    """Snapshots through the registry's gRPC services.

    Args:
        registry: its client.
        hub: where this host has mounted the hub cache that the registry fills.
        holder: who holds the pins that are taken here, and nobody else's; a model's uid is the claim.
        patience: seconds to wait until this host sees what the registry has written.
    """

    def __init__(self, registry: Registry, hub: Path, *, holder: str, patience: float = mount.PATIENCE) -> None:
        self._registry = registry
        self._hub = hub
        self._holder = holder
        self._patience = patience

    async def describe(self, source: RepoSource) -> Description:
        """The repository's files at the commit that its revision names; those in the cache when the registry is away.

        Raises:
            Fault: the registry's reasons; REGISTRY_UNAVAILABLE, and the cache does not know the revision.
        """
        try:
            return await self._describe(source)
        except Fault as fault:
            if fault.reason is not Reason.REGISTRY_UNAVAILABLE:
                raise
            found = await to_thread.run_sync(cached.describe, self._hub, source)
            if found is None:
                raise Fault(
                    fault.reason, f"{fault.text}; the cache of this host has no {source}", retry_after=fault.retry_after
                ) from fault
            _log.warning("the registry is away: described from the cache", source=str(source), commit=found.commit)
            return found

    async def _describe(self, source: RepoSource) -> Description:
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
            root=RepoPaths(self._hub, RepoId(repo.repo_id)).snapshot(Commit(repo.commit)),
        )

    async def fetch(self, want: Want, report: Callable[[Fetching], None]) -> Snapshot:
        """Have the variant downloaded, hold it for the one who wants it, and find it in the cache of this host.

        When the registry is away, what is complete in the cache is taken as it is, unpinned.

        Raises:
            Fault: the download's reason; CACHE_NOT_SHARED, it is not where the registry put it; REGISTRY_UNAVAILABLE,
                and the cache does not have all of it.
        """
        try:
            return await self._fetch(want, _Fetch(report))
        except Fault as fault:
            if fault.reason is not Reason.REGISTRY_UNAVAILABLE:
                raise
            if (found := await to_thread.run_sync(cached.find, self._hub, want)) is None:
                raise
            _log.warning("the registry is away: loading from the cache", uid=want.holder, root=str(found.root))
            return found

    async def _fetch(self, want: Want, fetch: "_Fetch") -> Snapshot:
        with _faults(self._registry):
            revision = await self._revision(want)
            # One that somebody has paused is waited for: unlike a person who pulls, a load resumes nothing.
            began = await self._registry.create_download(want.source.repo_id, revision, selection=_selection(want))
            follow = self._registry.follow_download(began.download, began.cursor, on_disconnect=fetch.lost)
            async for download in follow:
                fetch.tell(_fetching(download))
        pinned = await self._pin(want)
        root = await wait_for_mount(self._hub, pinned, patience=self._patience)
        return Snapshot(root=root, name=pinned.pin.snapshot)

    async def _revision(self, want: Want) -> str:
        """The name that was asked for while it still means the commit, else the commit.

        A download under a name has the cache know the name, too: so it is found there when the registry is away.
        """
        source = want.source
        if not Revision(source.revision).names_ref(Commit(want.commit)):
            return want.commit
        try:
            repo = await self._registry.get_repo(source.repo_id, source.revision)
        except SlipwayError as error:
            if error.reason not in Reason.__members__:
                raise  # the registry is away, not the Hub
            return want.commit
        return source.revision if repo.commit == want.commit else want.commit

    async def renew(self, want: Want) -> None:
        """Have the pin last for its whole time again; one that has ended meanwhile is taken anew.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND or SNAPSHOT_INCOMPLETE, the files were deleted; REGISTRY_UNAVAILABLE.
        """
        await self._pin(want)

    async def refuse(self, want: Want, why: str) -> None:
        """Say why the pin is not given back. Raises Fault: as `renew`."""
        await self._pin(want, refusal=why)

    async def release(self, holder: str) -> None:
        """End the pins of a model, by its uid. A registry that is away does not matter: they end by themselves."""
        try:
            for pin in await self._registry.list_pins(holder=self._holder):
                if pin.claim == holder:
                    await self._registry.unpin_snapshot(pin.name)
        except SlipwayError as error:
            _log.warning("pin not released", uid=holder, error=str(error))

    async def held(self) -> AsyncIterator[tuple[Held, ...]]:
        """The pins of this holder, whole after every change; the watch resumes by itself while the registry is away.

        Raises:
            Fault: the registry refuses the watch.
        """
        with _faults(self._registry):
            async with self._registry.watch_pins(holder=self._holder) as watch:
                synced = False
                async for event in watch:
                    synced = isinstance(event, Synced) or (synced and not isinstance(event, Reset))
                    if synced:
                        yield tuple(
                            Held(holder=pin.claim, wanted_back=pin.release_requested and not pin.release_refusal)
                            for pin in watch.mirror.resources.values()
                        )

    async def _pin(self, want: Want, *, refusal: str = "") -> PinSnapshotResponse:
        with _faults(self._registry):
            return await self._registry.pin_snapshot(
                want.source.repo_id,
                want.commit,
                holder=self._holder,
                claim=want.holder,
                selection=_selection(want),
                release_refusal=refusal,
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
            self.tell(replace(self._last, paused=False, detail=_AWAY))


def _selection(want: Want) -> Selection:
    return select(variant=want.variant) or Selection()


# The registry's field and that of a load, whose caller is told of it.
_FIELDS = {"repo_id": "spec.repo.repo_id", "revision": "spec.repo.revision"}


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
            fields=tuple(
                FieldViolation(_FIELDS[it.field], it.description) for it in error.fields if it.field in _FIELDS
            ),
            link=next((Link(it.description, it.url) for it in error.help), None),
            resource=error.resource,
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
        paused=state in _WAITING,
        detail="" if moving else f"download {download.message}",
    )
