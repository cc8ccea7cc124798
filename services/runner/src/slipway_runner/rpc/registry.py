"""The registry as the fleet needs it: what a repository holds, and its files on this host."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.common.v1 import variant_pb2
from slipway.registry.v1 import download_pb2
from slipway_client import Registry, SlipwayError, select
from slipway_service.fault import Fault, Link, Precondition, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

from slipway_runner.models.snapshots import Description, Fetching, Snapshot, Want
from slipway_runner.models.spec import RepoSource


class RegistrySnapshots:
    """Snapshots through the registry's gRPC services.

    Args:
        registry: its client.
        hub: where this host has mounted the hub cache that the registry fills.
    """

    def __init__(self, registry: Registry, hub: Path) -> None:
        self._registry = registry
        self._hub = hub

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
        """Have the variant downloaded, and find it in the cache of this host.

        Raises:
            Fault: the download's reason; REGISTRY_UNAVAILABLE; CACHE_NOT_SHARED, it is not where the registry put it.
        """
        path, name = "", ""
        with _faults(self._registry):
            async for download in self._registry.pull(
                want.source.repo_id, want.commit, selection=select(variant=want.variant)
            ):
                report(_fetching(download))
                path, name = download.snapshot_path, download.snapshot
        root = self._hub / path
        if not root.is_dir():
            raise Fault(
                Reason.CACHE_NOT_SHARED,
                f"the registry has put {want.source.repo_id} at {path} of its cache, but {root} is not there: mount "
                "the registry's cache on this host and set HF_HUB_CACHE to it",
            )
        return Snapshot(root=root, name=name)

    async def renew(self, want: Want) -> None:
        """Nothing is pinned yet: this registry has no pins."""

    async def release(self, holder: str) -> None:
        """Nothing is pinned yet."""


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
