"""The facade for code without a loop: complete, typed, and closed when left early."""

import threading
from collections.abc import Iterator

import anyio
import pytest
from slipway.registry.v1.catalog_service_pb2 import GetRepoResponse
from slipway.registry.v1.download_pb2 import Download, DownloadState
from slipway.registry.v1.download_service_pb2 import CreateDownloadResponse, WatchDownloadsResponse
from slipway.registry.v1.repo_pb2 import Repo
from slipway_client import Registry, Runner, Synced
from slipway_client.errors import NotServed
from slipway_client.sync import SyncClient, SyncRegistry, SyncRunner, shared_loop

from tests.integration.client.fakes import FakeService, serving


@pytest.fixture
def fake() -> Iterator[FakeService]:
    service = FakeService()
    with shared_loop().wrap_async_context_manager(serving(service)):
        yield service


@pytest.mark.parametrize(("facade", "client"), [(SyncRegistry, Registry), (SyncRunner, Runner)])
def test_everything_is_there(facade: type[SyncClient[Registry]], client: type[Registry]) -> None:
    def public(one: type) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_")}

    assert public(client) - {"aclose"} == public(facade) - {"close"}


def test_calls(fake: FakeService) -> None:
    fake.answers["GetRepo"] = GetRepoResponse(repo=Repo(repo_id="org/m"))
    with SyncRegistry.connect(fake.address) as registry:
        repo: Repo = registry.get_repo("org/m", revision="main")
        assert repo.repo_id == "org/m"
        with pytest.raises(NotServed, match="NOT_IMPLEMENTED"):
            registry.get_cache_usage()
    assert fake.requests("GetRepo")[0].revision == "main"


def test_iterators(fake: FakeService) -> None:
    done = Download(name="downloads/1", state=DownloadState.DOWNLOAD_STATE_SUCCEEDED)
    fake.answers["CreateDownload"] = CreateDownloadResponse(download=done)
    with SyncRegistry.connect(fake.address) as registry:
        assert list(registry.pull("org/m")) == [done]


def test_leaving_an_iterator_ends_its_stream(fake: FakeService) -> None:
    never = anyio.Event()
    fake.streams["WatchDownloads"] = [[WatchDownloadsResponse(synced=True), never]]
    with SyncRegistry.connect(fake.address) as registry:
        for event in registry.watch_downloads():
            assert isinstance(event, Synced)
            break
    with SyncRunner.connect(fake.address) as runner, pytest.raises(NotServed):
        runner.list_models()


def test_all_clients_share_a_loop(fake: FakeService) -> None:
    before = threading.active_count()
    with SyncRegistry.connect(fake.address), SyncRunner.connect(fake.address) as runner:
        with pytest.raises(NotServed):
            runner.get_runner()
        assert threading.active_count() - before <= 1  # the poller of grpc.aio
    with pytest.raises(ValueError, match="HOST:PORT"):
        SyncRegistry.connect("nowhere")
