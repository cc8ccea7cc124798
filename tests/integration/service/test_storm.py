"""Many watchers at once."""

from pathlib import Path

import anyio
import pytest
from slipway.runner.v1 import model_service_pb2

from tests.integration.service.harness import PATIENCE, Running, read, running

pytestmark = pytest.mark.anyio

CONNECTIONS = 4


async def storm(toy: Running, watches: int) -> None:
    """Open all watches in one go, let none be refused, and deliver one transition to every one of them."""
    request = model_service_pb2.WatchModelsRequest()
    channels = [toy.open_channel() for _ in range(CONNECTIONS)]
    stubs = [Running(toy.host, toy.toy, channel).models for channel in channels]
    calls = [stubs[number % CONNECTIONS].WatchModels(request) for number in range(watches)]
    for call in calls:
        assert (await read(call)).synced
    await toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="a"))
    for call in calls:
        assert (await read(call)).cursor.revision == 1
    for channel in channels:
        await channel.close()


async def test_twenty_five_hundred_watches_opened_at_once_are_served(tmp_path: Path) -> None:
    """Without our options core would reject some: it holds 1,000 that nobody has accepted yet for each method."""
    with anyio.fail_after(2 * PATIENCE):
        async with running(tmp_path) as toy:
            await storm(toy, 2500)
