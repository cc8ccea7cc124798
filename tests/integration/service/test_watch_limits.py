"""Requests that are wrong in a thousand places still get an answer that says so."""

from pathlib import Path

import grpc
import pytest
from slipway.runner.v1 import model_service_pb2
from slipway_service.fault import Reason
from slipway_service.validation import MOST_SHOWN

from tests.integration.service.harness import PATIENCE, fault_of, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", [100, 1000, 20_000])
async def test_very_many_wrong_names_are_refused_with_the_first_of_them(tmp_path: Path, count: int) -> None:
    request = model_service_pb2.WatchModelsRequest(names=["밝은 " * 20] * count)
    async with running(tmp_path) as toy:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.models.WatchModels(request, timeout=PATIENCE).read()
    fault = fault_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fault.reason is Reason.INVALID_FIELDS
    assert len(fault.fields) == MOST_SHOWN
