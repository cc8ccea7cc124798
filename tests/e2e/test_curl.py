"""What a person with grpcurl sees; `buf curl` speaks the same reflection."""

import json

from tests.e2e.stack import Stack, documents

CHAT = "slipway-demo/tiny-chat-GGUF"


def test_every_service_is_listed(stack: Stack) -> None:
    assert set(stack.curl(stack.registry, "").out.split()) >= {
        "grpc.health.v1.Health",
        "slipway.registry.v1.CatalogService",
        "slipway.registry.v1.DownloadService",
        "slipway.registry.v1.SnapshotService",
    }
    assert set(stack.curl(stack.runner, "").out.split()) >= {
        "grpc.health.v1.Health",
        "slipway.runner.v1.ModelService",
        "slipway.runner.v1.RunnerService",
    }


def test_a_model_is_loaded_and_watched_until_it_answers(stack: Stack) -> None:
    request = {"id": "curled", "spec": {"repo": {"repoId": CHAT}}}
    loading = stack.curl(stack.runner, "slipway.runner.v1.ModelService/LoadModel", request)
    assert json.loads(loading.out)["model"]["state"] == "MODEL_STATE_LOADING"

    watched = stack.curl(
        stack.runner, "slipway.runner.v1.ModelService/WatchModels", {"names": ["models/curled"], "untilDone": True}
    )
    assert watched.code == 0
    events = [event for batch in documents(watched.out) for event in batch.get("events", [])]
    assert events[-1]["model"]["state"] == "MODEL_STATE_LOADED"

    health = stack.curl(stack.runner, "grpc.health.v1.Health/Check", {"service": "models/curled"})
    assert json.loads(health.out)["status"] == "SERVING"
    stack.slipway("unload", "curled")


def test_a_bad_id_gets_an_error_that_says_what_to_do(stack: Stack) -> None:
    request = {"id": "not/an id", "spec": {"repo": {"repoId": "no host://please"}}}
    refused = json.loads(stack.curl(stack.runner, "slipway.runner.v1.ModelService/LoadModel", request).err)

    assert refused["code"] == "invalid_argument"
    assert refused["message"].startswith("INVALID_FIELDS: ")
    assert "id: must be 1-128 letters" in refused["message"]
    assert "spec.repo.repo_id: " in refused["message"], "all that is wrong is said at once"


def test_an_unknown_model_is_not_found_by_reason(stack: Stack) -> None:
    refused = json.loads(
        stack.curl(stack.runner, "slipway.runner.v1.ModelService/GetModel", {"name": "models/nobody"}).err
    )

    assert refused["code"] == "not_found"
    assert refused["message"].startswith("MODEL_NOT_FOUND: ")
