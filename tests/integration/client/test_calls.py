"""Calls over real sockets: what is sent with each, what is repeated, and what comes back as an error."""

import anyio
import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from slipway.registry.v1.catalog_service_pb2 import GetRepoResponse, SearchReposResponse
from slipway.registry.v1.download_pb2 import Download
from slipway.registry.v1.download_service_pb2 import CreateDownloadResponse
from slipway.registry.v1.repo_pb2 import Repo, RepoSummary
from slipway.registry.v1.snapshot_pb2 import Snapshot
from slipway.registry.v1.snapshot_service_pb2 import ListSnapshotsResponse
from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo
from slipway.runner.v1.runner_service_pb2 import GetRunnerResponse
from slipway_client import Registry, Runner
from slipway_client.channel import UNARY_DEADLINE
from slipway_client.errors import DeadlineExceeded, RequestInvalid, SlipwayError, Unavailable

from tests.integration.client.fakes import Context, Failure, FakeService, nobody, serving

pytestmark = pytest.mark.anyio

AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "a replica is going away")


async def test_every_call_has_a_deadline_a_request_id_and_the_callers_token() -> None:
    fake = FakeService({"GetRepo": GetRepoResponse(repo=Repo(repo_id="org/m"))})
    async with serving(fake), Registry.connect(fake.address) as registry:
        assert (await registry.get_repo("org/m", hf_token="hf_x")).repo_id == "org/m"
        await registry.get_repo("org/m")
    first, second = fake.calls
    assert first.time_remaining is not None
    # On the wire a deadline from 10 to 100 s is rounded up to a tenth of a second (gRPC core, `Timeout::FromMillis`).
    assert UNARY_DEADLINE / 2 < first.time_remaining <= UNARY_DEADLINE + 0.1
    assert first.metadata["x-hf-token"] == "hf_x"
    assert "x-hf-token" not in second.metadata
    assert len(first.metadata["x-request-id"]) == 32
    assert first.metadata["x-request-id"] != second.metadata["x-request-id"]


async def test_a_deadline_of_ones_own() -> None:
    async def too_late(_: object, context: Context) -> None:
        await anyio.sleep_forever()

    fake = FakeService({"GetRunner": GetRunnerResponse()})
    # Long enough for a request to arrive over a connection that is there.
    async with serving(fake), Runner.connect(fake.address, deadline=1.5) as runner:
        await runner.get_runner(timeout=30)
        fake.answers["GetRunner"] = too_late
        with pytest.raises(DeadlineExceeded) as caught:
            await runner.get_runner()
        assert caught.value.request_id == fake.calls[1].metadata["x-request-id"]
        assert not caught.value.from_service
        with pytest.raises(DeadlineExceeded):
            await runner.get_runner(timeout=0.01)


async def test_a_call_that_is_cancelled_ends_nothing_else() -> None:
    asked = anyio.Event()

    async def hang(_: object, context: Context) -> None:
        asked.set()
        await anyio.sleep_forever()

    fake = FakeService({"GetRunner": hang})
    async with serving(fake), Runner.connect(fake.address) as runner:
        scope = anyio.CancelScope()

        async def ask() -> None:
            with scope:
                await runner.get_runner()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(60):
                await asked.wait()
            scope.cancel()
        assert not tasks.cancel_scope.cancel_called
        assert scope.cancelled_caught


async def test_errors_come_with_all_they_say() -> None:
    violation = BadRequest.FieldViolation(field="repo_id", description="send owner/name")
    refused = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "look at the fields",
        "INVALID_FIELDS",
        (BadRequest(field_violations=[violation]), RetryInfo(retry_delay=Duration(seconds=2))),
    )
    fake = FakeService({"CreateDownload": refused})
    async with serving(fake), Registry.connect(fake.address) as registry:
        with pytest.raises(RequestInvalid) as caught:
            await registry.create_download("!")
    error = caught.value
    assert (error.reason, error.text, error.address) == ("INVALID_FIELDS", "look at the fields", fake.address)
    assert [(one.field, one.description) for one in error.fields] == [("repo_id", "send owner/name")]
    assert error.retry_after == 2.0
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


async def test_a_call_is_repeated_when_a_replica_goes_away() -> None:
    answers = iter([AWAY, AWAY, CreateDownloadResponse(download=Download(name="downloads/1"))])

    async def next_answer(_: object, context: Context) -> CreateDownloadResponse:
        answer = next(answers)
        if isinstance(answer, Failure):
            await answer.abort(context)
        assert isinstance(answer, CreateDownloadResponse)
        return answer

    fake = FakeService({"CreateDownload": next_answer})
    async with serving(fake), Registry.connect(fake.address) as registry:
        assert (await registry.create_download("org/m")).download.name == "downloads/1"
    assert len(fake.calls) == 3


@pytest.mark.parametrize(
    ("failure", "asked"),
    [
        pytest.param(AWAY, 3, id="unavailable"),
        pytest.param(
            Failure(grpc.StatusCode.UNAVAILABLE, reason="OFFLINE", metadata=(("grpc-retry-pushback-ms", "-1"),)),
            1,
            id="unavailable and not to be repeated",
        ),
        pytest.param(Failure(grpc.StatusCode.INTERNAL, reason="INTERNAL"), 1, id="another code"),
    ],
)
async def test_what_is_repeated_and_how_often(failure: Failure, asked: int) -> None:
    fake = FakeService({"GetRepo": failure})
    async with serving(fake), Registry.connect(fake.address) as registry:
        with pytest.raises(SlipwayError):
            await registry.get_repo("org/m")
    assert len(fake.calls) == asked


async def test_nobody_there() -> None:
    with nobody() as address:
        async with Registry.connect(address) as registry:
            with pytest.raises(Unavailable) as caught:
                await registry.search("x")
    assert (caught.value.reason, caught.value.address) == ("UNAVAILABLE", address)


async def test_search_reads_only_the_pages_it_needs() -> None:
    async def page(request: object, _: Context) -> SearchReposResponse:
        token = getattr(request, "page_token", "")
        number = int(token or 0)
        found = [RepoSummary(repo_id=f"org/{number * 100 + at}") for at in range(100)]
        return SearchReposResponse(repos=found, next_page_token=str(number + 1))

    fake = FakeService({"SearchRepos": page})
    async with serving(fake), Registry.connect(fake.address) as registry:
        found = await registry.search("m", sort="likes", limit=150)
    assert [one.repo_id for one in found] == [f"org/{at}" for at in range(150)]
    assert [request.page_token for request in fake.requests("SearchRepos")] == ["", "1"]
    assert {request.query for request in fake.requests("SearchRepos")} == {"m"}


async def test_replicas_share_the_calls() -> None:
    replicas = [FakeService({"GetRunner": GetRunnerResponse(runner=RunnerInfo(host=name))}) for name in ("a", "b")]
    async with serving(*replicas), Runner.connect(",".join(one.address for one in replicas)) as runner:
        hosts: set[str] = set()
        with anyio.fail_after(60):
            while len(hosts) < 2:  # the second connection may come up a little later
                hosts.add((await runner.get_runner()).host)
        assert [(await runner.get_runner()).host for _ in range(10)].count("a") == 5


async def test_a_cancelled_caller_cancels_the_call() -> None:
    seen = anyio.Event()
    cancelled = anyio.Event()

    async def hang(_: object, __: Context) -> None:
        seen.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    fake = FakeService({"GetRepo": hang})
    async with serving(fake), Registry.connect(fake.address) as registry:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(registry.get_repo, "org/m")
                await seen.wait()
                tasks.cancel_scope.cancel()
            await cancelled.wait()


async def test_tls() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    fake = FakeService({"GetRunner": GetRunnerResponse(runner=RunnerInfo(host="h"))})
    server = grpc.aio.server()
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    fake.register(server)
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    )
    await server.start()
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with Runner.connect(f"localhost:{port}", credentials=credentials) as runner:
        assert (await runner.get_runner()).host == "h"
    await server.stop(None)


async def test_lists_are_read_in_the_largest_pages_there_are() -> None:
    async def page(request: object, _: Context) -> ListSnapshotsResponse:
        number = int(getattr(request, "page_token", "") or 0)
        snapshots = [Snapshot(name=f"snapshots/{number}")]
        return ListSnapshotsResponse(snapshots=snapshots, next_page_token="1" if number == 0 else "")

    fake = FakeService({"ListSnapshots": page})
    async with serving(fake), Registry.connect(fake.address) as registry:
        found = await registry.list_snapshots(repo_id="org/m")
    assert [one.name for one in found] == ["snapshots/0", "snapshots/1"]
    assert [(it.repo_id, it.page_size) for it in fake.requests("ListSnapshots")] == [("org/m", 1000)] * 2
