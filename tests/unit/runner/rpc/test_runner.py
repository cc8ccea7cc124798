"""What GetRunner says of backends."""

from slipway.common.v1 import task_pb2
from slipway_runner.backends.base import Found, NotUsable, Task
from slipway_runner.backends.command import INFINITY
from slipway_runner.backends.select import SHIPPED
from slipway_runner.devices.device import DeviceKind
from slipway_runner.models.plan import Backends
from slipway_runner.rpc.runner import backend_infos

GENERATE, EMBED, RERANK = task_pb2.TASK_GENERATE, task_pb2.TASK_EMBED, task_pb2.TASK_RERANK


def test_what_each_backend_can_serve_is_told_whether_it_is_usable_or_not() -> None:
    usable = Found(backend="x", version="1", program=("/x",), kinds=frozenset({DeviceKind.CPU}))
    found = {one.name: usable if one is INFINITY else NotUsable(backend=one.name, why="no") for one in SHIPPED}
    infos = backend_infos(Backends(adapters=SHIPPED, found=found))
    assert {info.name: list(info.tasks) for info in infos} == {
        "infinity": [EMBED, RERANK],
        "llama-server": [GENERATE, EMBED, RERANK],
        "sglang": [GENERATE, EMBED],
        "transformers": [GENERATE],
        "vllm": [GENERATE, EMBED, RERANK],
    }
    assert [info.name for info in infos if info.usable] == ["infinity"]
    assert INFINITY.tasks == (Task.EMBED, Task.RERANK)
