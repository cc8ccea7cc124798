"""How errors are told, to people and to programs, against fakes of both services."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, Help, PreconditionFailure, RequestInfo, RetryInfo
from slipway.registry.v1.catalog_service_pb2 import SearchReposResponse
from slipway.registry.v1.snapshot_pb2 import Pin, Snapshot
from slipway.registry.v1.snapshot_service_pb2 import ListPinsResponse, ListSnapshotsResponse

from tests.integration.client.command import slipway
from tests.integration.client.fakes import Failure, FakeService, serving
from tests.integration.client.resources import COMMIT, NO_MODEL

pytestmark = pytest.mark.anyio


async def test_an_error_for_people() -> None:
    fake = FakeService(
        {
            "GetRepo": Failure(
                grpc.StatusCode.PERMISSION_DENIED,
                "ask for access on its page",
                "REPO_GATED",
                (Help(links=[Help.Link(description="the page", url="https://hub.example/org/m")]),),
            ),
            "DeleteSnapshot": Failure(
                grpc.StatusCode.FAILED_PRECONDITION,
                "it is in use",
                "SNAPSHOT_PINNED",
                (
                    PreconditionFailure(
                        violations=[
                            PreconditionFailure.Violation(type="PIN", subject="gpu1", description="until it unloads m")
                        ]
                    ),
                    RetryInfo(retry_delay=Duration(seconds=2)),
                ),
            ),
            "ListSnapshots": ListSnapshotsResponse(
                snapshots=[Snapshot(name="snapshots/1", repo_id="org/m", commit=COMMIT)]
            ),
            "ListPins": ListPinsResponse(
                pins=[Pin(name="pins/12345678abcd", holder="gpu1", expire_time=Timestamp(seconds=1))]
            ),
            "ListModels": Failure(
                grpc.StatusCode.INTERNAL, "internal error", "INTERNAL", (RequestInfo(request_id="r-1"),)
            ),
            "ListDownloads": Failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "see the fields",
                "INVALID_FIELDS",
                (BadRequest(field_violations=[BadRequest.FieldViolation(field="repo_id", description="too long")]),),
            ),
        }
    )
    async with serving(fake):
        gated = await slipway(fake, "info", "org/m")
        pinned = await slipway(fake, "uninstall", "org/m")
        defect = await slipway(fake, "ps")
        invalid = await slipway(fake, "downloads")
    assert (gated.code, gated.err) == (4, "REPO_GATED: ask for access on its page\n  https://hub.example/org/m\n")
    assert (pinned.code, pinned.err) == (
        5,
        (
            "SNAPSHOT_PINNED: it is in use\n"
            "  gpu1: until it unloads m\n"
            "  --timeout DURATION waits longer for those who have not answered\n"
            "  `slipway cache unpin 12345678` ends the pin of gpu1\n"
            "  try again in 2.0 s\n"
        ),
    )
    assert (defect.code, defect.err) == (
        1,
        "INTERNAL: internal error\n  its log has more under request id r-1\n",
    )
    assert (invalid.code, invalid.err) == (2, "INVALID_FIELDS: see the fields\n  repo_id: too long\n")


async def test_a_service_that_does_not_know_the_call() -> None:
    fake = FakeService()
    async with serving(fake):
        ended = await slipway(fake, "downloads", "--runner", "127.0.0.1:1")
        as_json = await slipway(fake, "downloads", "--json")
    text = f"what answers at {fake.address} does not serve this; is it slipway-registry, and not an older one?"
    assert (ended.code, ended.err) == (11, f"NOT_IMPLEMENTED: {text}\n")
    assert (as_json.error["exitCode"], as_json.error["code"]) == (11, "UNIMPLEMENTED")


async def test_an_error_for_programs() -> None:
    fake = FakeService({"GetModel": NO_MODEL})
    async with serving(fake):
        ended = await slipway(fake, "chat", "m", "hi", "--json")
    assert (ended.code, ended.out) == (3, "")
    request_id = fake.calls[0].metadata["x-request-id"]
    assert ended.error == {
        "reason": "MODEL_NOT_FOUND",
        "message": "there is no such model",
        "code": "NOT_FOUND",
        "exitCode": 3,
        "requestId": request_id,
        "address": fake.address,
    }


@pytest.mark.parametrize(
    ("arguments", "reason", "text"),
    [
        (("pll",), "USAGE", "No such command 'pll'. Did you mean 'pull'?"),
        (("pull",), "USAGE", "Missing argument"),
        (("pull", "org/m@"), "USAGE", "'org/m@' is not REPO or REPO@REVISION"),
        (("pull", "org/m", "--variant", "a", "--all"), "USAGE", "choose by variant, or by patterns, or everything"),
        (("search", "--sort", "size"), "USAGE", "is not one of"),
        (("ps", "--runner", "nowhere"), "CONFIGURATION", "--runner: 'nowhere' has no host or no port"),
        (("ps", "--config", "/nowhere.toml"), "CONFIGURATION", "there is no such file"),
    ],
)
async def test_usage_errors(arguments: tuple[str, ...], reason: str, text: str) -> None:
    fake = FakeService(address="127.0.0.1:1")
    ended = await slipway(fake, *arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"{reason}: ")
    assert text in ended.err
    as_json = await slipway(fake, *arguments, "--json")
    assert (as_json.code, as_json.out) == (2, "")
    assert (as_json.error["reason"], as_json.error["exitCode"]) == (reason, 2)


async def test_an_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTY", "x")
    ended = await slipway(FakeService(address="127.0.0.1:1"), "ps")
    assert (ended.code, ended.err) == (
        2,
        "CONFIGURATION: the variable SLIPWAY_REGISTY is not known; did you mean SLIPWAY_REGISTRY?\n",
    )


async def test_what_follows_two_dashes_is_not_ours() -> None:
    fake = FakeService({"SearchRepos": SearchReposResponse()})
    async with serving(fake):
        ended = await slipway(fake, "search", "--", "--json")
    assert ended.out == "nothing found\n"
    assert fake.requests("SearchRepos")[0].query == "--json"
