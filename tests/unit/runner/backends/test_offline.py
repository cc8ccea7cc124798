"""No backend asks the Hub, or writes into the cache that it reads from."""

import pytest
from slipway_runner.backends.base import Backend
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.sglang import Sglang
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.backends.vllm import Vllm
from slipway_runner.devices.device import DeviceKind

from tests.unit.runner.backends.plans import found, gguf, plan, safetensors


@pytest.mark.parametrize("backend", [Vllm(), Sglang(), TransformersServe()], ids=lambda it: type(it).__name__)
def test_python_servers_are_offline_with_a_home_of_their_own(backend: Backend) -> None:
    wanted = plan(found("any", DeviceKind.CPU, DeviceKind.CUDA), safetensors())
    environment = backend.launch(wanted).env
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HF_HOME"].startswith(str(wanted.scratch))


def test_llama_server_is_offline() -> None:
    which = found("llama-server", DeviceKind.CPU, flags=frozenset({"--offline"}))
    assert "--offline" in LlamaServer().launch(plan(which, gguf())).argv
