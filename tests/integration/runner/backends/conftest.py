"""Real backends and tiny models for them."""

import os
from pathlib import Path

import pytest
from slipway_runner.backends.base import Backend, Found, Host
from slipway_runner.backends.host import run_program
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.backends.vllm import Vllm

from deploy.backends.store import default_root
from tests.hub.models.demo import demo_models


def find(backend: Backend) -> Found:
    """Never skipped: without a backend these tests prove nothing."""
    path = tuple(map(Path, os.get_exec_path()))
    found = backend.find(Host(search_path=path, installed=default_root(os.environ), run=run_program))
    assert isinstance(found, Found), f"{found.why} (make backends)"
    return found


@pytest.fixture(scope="session")
def models() -> Path:
    return demo_models()


@pytest.fixture(scope="session")
def llama_server() -> Found:
    return find(LlamaServer())


@pytest.fixture(scope="session")
def transformers() -> Found:
    return find(TransformersServe())


@pytest.fixture(scope="session")
def vllm() -> Found:
    return find(Vllm())
