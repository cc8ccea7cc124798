"""The runner's client: load models on its host, watch them, choose and stop them.

async with Runner.connect("127.0.0.1:50061") as runner:
    async for model in runner.load(model_spec("org/model", variant="Q4_K_M")):
        print(model.load_progress.fraction)
"""

from slipway.runner.v1.runner_pb2 import Runner as RunnerInfo
from slipway.runner.v1.runner_service_pb2 import DrainRunnerRequest, DrainRunnerResponse, GetRunnerRequest
from slipway.runner.v1.runner_service_pb2_grpc import RunnerServiceStub

from slipway_client.backoff import Backoff
from slipway_client.client import duration
from slipway_client.connection import Connection
from slipway_client.models import ModelCalls


class Runner(ModelCalls):
    """All calls of a runner. Every method raises SlipwayError; its docstring has the reasons to expect."""

    def __init__(self, connection: Connection, *, backoff: Backoff | None = None) -> None:
        super().__init__(connection, backoff=backoff)
        self._runner = RunnerServiceStub(connection.channel)

    async def get_runner(self, *, timeout: float | None = None) -> RunnerInfo:
        """Host, devices and backends, read anew with each call."""
        return (await self._runner.GetRunner(GetRunnerRequest(), timeout=timeout)).runner

    async def drain_runner(
        self, *, undo: bool = False, keep_models: bool = False, drain_timeout: float | None = None
    ) -> DrainRunnerResponse:
        """Refuses loads and unloads every model (or keeps them), or with `undo` takes loads again."""
        request = DrainRunnerRequest(undo=undo, keep_models=keep_models, drain_timeout=duration(drain_timeout))
        return await self._runner.DrainRunner(request)
