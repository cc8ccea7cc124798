"""What a Watch request asks for."""

import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.runner.v1.model_service_pb2 import WatchModelsRequest
from slipway_service.watch_rpc import parse_watch


@pytest.mark.parametrize(
    ("request_", "interval"),
    [
        (WatchModelsRequest(), None),
        (WatchModelsRequest(min_progress_interval=Duration()), 0.0),
        (WatchModelsRequest(min_progress_interval=Duration(nanos=10_000_000)), 0.01),
    ],
    ids=["unset", "0 s", "10 ms"],
)
def test_no_interval_is_the_servers_and_none_at_all_is_the_shortest(
    request_: WatchModelsRequest, interval: float | None
) -> None:
    assert parse_watch(request_, collection="models").min_progress_interval == interval
