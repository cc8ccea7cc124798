"""What ModelService refuses before it asks the fleet."""

from typing import Any

import pytest
from slipway.runner.v1 import model_pb2
from slipway.runner.v1 import model_service_pb2 as pb
from slipway_runner.rpc.models import ModelService
from slipway_service.fault import Fault, Reason

pytestmark = pytest.mark.anyio

NOBODY: Any = None
SPEC = model_pb2.ModelSpec(repo=model_pb2.RepoSource(repo_id="org/m"))


@pytest.fixture
def service() -> ModelService:
    return ModelService(NOBODY, NOBODY, endpoint=str, logs=NOBODY)


async def test_states_that_no_model_can_be_in_are_refused(service: ModelService) -> None:
    states: Any = [model_pb2.MODEL_STATE_LOADED, model_pb2.MODEL_STATE_UNSPECIFIED, 99]
    with pytest.raises(Fault) as refused:
        await service.ListModels(pb.ListModelsRequest(states=states), NOBODY)
    assert refused.value.reason is Reason.INVALID_FIELDS
    assert [violation.field for violation in refused.value.fields] == ["states[1]", "states[2]"]


async def test_nothing_is_unloaded_first_where_nothing_is_replaced(service: ModelService) -> None:
    with pytest.raises(Fault) as refused:
        await service.LoadModel(pb.LoadModelRequest(spec=SPEC, unload_first=True), NOBODY)
    assert refused.value.reason is Reason.INVALID_FIELDS
    assert [violation.field for violation in refused.value.fields] == ["unload_first"]
