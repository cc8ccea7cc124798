"""Repositories with their variants, headers and fit."""

import json
import os
from pathlib import Path

import pytest
from slipway_service.weights.memory import DeviceMemory
from slipway_service.weights.task import Task

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import ContentRange, IgnoreRange, Status
from tests.integration.registry.hub.client import HubClient, caller
from tests.unit.service.weights.ggufs import write_gguf

pytestmark = pytest.mark.anyio

REPO = "org/m-GGUF"
WEIGHTS = 64 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of 64 MiB, nearly all of it behind the header."""
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "large.gguf", vocabulary=60_000)
    os.truncate(path, WEIGHTS)
    return path


async def test_memory_comes_from_the_header_and_not_from_the_file(
    hub: HubEmulator, client: HubClient, large: Path
) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": large, "m-Q8_0.gguf": Random(1000), "mmproj-F16.gguf": Random(500)})
    found = await client.get(REPO, context_tokens=1000, devices=[DeviceMemory(device_id="cpu", free_bytes=1 << 40)])
    variants = {variant.name: variant for variant in found.variants}
    memory = variants["Q4_K_M"].memory
    assert memory is not None
    assert memory.weights_bytes == WEIGHTS + 500
    assert memory.kv_bytes_per_1k_tokens == 1000 * 2 * 2 * (16 + 16) * 2  # layers, heads, key and value, 16 bit
    assert variants["Q8_0"].memory is not None
    assert variants["Q8_0"].memory.kv_bytes_per_1k_tokens == memory.kv_bytes_per_1k_tokens
    assert [fit.fits for fit in variants["Q4_K_M"].fits] == [True]
    assert (found.config.architecture, found.config.context_length) == ("llama", 2048)
    assert (found.config.task, found.config.chat_template) == (Task.GENERATE, True)
    fetched = hub.journal.wait_for(origin="cdn", finished=True)
    assert 0 < sum(request.sent for request in fetched) < 8 << 20
    assert all(request.byte_range is not None for request in fetched)


async def test_a_header_is_read_once(hub: HubEmulator, client: HubClient, large: Path) -> None:
    repo = hub.add_repo(REPO, {"m-Q4_K_M.gguf": large})
    await client.get(REPO)
    fetched = len(hub.journal.requests(origin="cdn"))
    repo.commit({"README.md": "new"})
    client.now += 3600
    assert len((await client.get(REPO)).files) == 2
    assert len(hub.journal.requests(origin="cdn")) == fetched


async def test_a_repository_of_safetensors(hub: HubEmulator, client: HubClient) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
        "auto_map": {"AutoModel": "x.X"},
    }
    hub.add_repo(
        "org/m",
        {
            "config.json": json.dumps(config),
            "model.safetensors": Random(2000),
            "onnx/model_q4.onnx": Random(100),
            "README.md": "---\nlicense: apache-2.0\n---\n",
            "chat_template.jinja": "{{ messages }}",
        },
        pipeline_tag="text-generation",
        info={"safetensors": {"parameters": {"BF16": 1000}, "total": 1000}},
    )
    found = await client.get("org/m")
    assert found.license == "apache-2.0"
    assert found.total_bytes == sum(file.size_bytes for file in found.files)
    assert found.config.parameters == 1000
    assert (found.config.remote_code, found.config.chat_template, found.config.task) == (True, True, Task.GENERATE)
    variants = {variant.name: variant for variant in found.variants}
    assert set(variants) == {"safetensors", "onnx-q4"}
    weights = variants["safetensors"]
    assert (weights.quantization, weights.bits_per_weight, weights.default) == ("BF16", 16.0, True)
    assert weights.memory is not None
    assert weights.memory.context_tokens == 4096
    assert weights.memory.kv_bytes_per_1k_tokens == 1000 * 2 * 4 * 32 * 2


async def test_a_gated_repository_is_estimated_by_sizes_and_what_the_hub_says(
    hub: HubEmulator, client: HubClient, large: Path
) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": large, "config.json": '{"architectures":["X"]}'}, gated="manual")
    found = await client.get(REPO)
    (variant,) = found.variants
    assert variant.memory is not None
    assert variant.memory.weights_bytes == WEIGHTS
    assert variant.memory.kv_bytes_per_1k_tokens is None
    assert found.config.context_length == 2048  # the Hub read the header itself
    assert variant.memory.context_tokens == 2048
    hub.add_user("ann", "hf_ann", {REPO})
    (variant,) = (await client.get(REPO, credential=caller("hf_ann"))).variants
    assert variant.memory is not None
    assert variant.memory.kv_bytes_per_1k_tokens is not None


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\5\0\0\0\0\0\0\0" * 2, b"not a model at all"])
async def test_a_broken_header_breaks_nothing_else(hub: HubEmulator, client: HubClient, content: bytes) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": content, "config.json": "[]"}, info={"config": {}, "gguf": {}})
    (variant,) = (await client.get(REPO)).variants
    assert variant.memory is not None
    assert variant.memory.kv_bytes_per_1k_tokens is None


async def test_a_cdn_that_ignores_ranges_is_not_read_to_the_end(
    hub: HubEmulator, client: HubClient, large: Path
) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": large})
    hub.faults.add(IgnoreRange(), origin="cdn")
    (variant,) = (await client.get(REPO)).variants
    assert variant.memory is not None
    assert sum(request.sent for request in hub.journal.wait_for(origin="cdn", finished=True)) < WEIGHTS // 2


async def test_a_whole_file_in_place_of_its_first_part_will_do(
    hub: HubEmulator, client: HubClient, tmp_path: Path
) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": write_gguf(tmp_path / "small.gguf")})
    hub.faults.add(IgnoreRange(), origin="cdn")
    (variant,) = (await client.get(REPO)).variants
    assert variant.memory is not None
    assert variant.memory.kv_bytes_per_1k_tokens is not None


async def test_a_cdn_that_is_away_costs_the_header_only(hub: HubEmulator, large: Path) -> None:
    client = HubClient(hub.endpoint, tries=2)
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": large})
    hub.faults.add(Status(503), origin="cdn")
    (variant,) = (await client.get(REPO)).variants
    assert variant.memory is not None
    assert variant.memory.kv_bytes_per_1k_tokens is None


async def test_thousands_of_files_in_folders(hub: HubEmulator, client: HubClient) -> None:
    files = {
        f"m{n}.v1+x/{label}/m{n}-{label}-{part:05}-of-00003.gguf": b"x"
        for n in range(100)
        for label in ("Q4_K_M", "UD-Q4_K_XL")
        for part in (1, 2, 3)
    }
    hub.add_repo(REPO, {**files, **{f"docs/{n}.md": b"x" for n in range(1500)}}, info={"gguf": {}})
    found = await client.get(REPO)
    assert len(found.files) == 2100
    assert len(found.variants) == 200
    assert all(len(variant.files) == 3 and not variant.missing for variant in found.variants)
    assert sum(variant.default for variant in found.variants) == 1
    assert len(hub.journal.requests(origin="cdn")) <= 4  # headers of four models, no more


async def test_a_part_from_elsewhere_is_not_taken_for_the_one_asked_for(
    hub: HubEmulator, client: HubClient, large: Path
) -> None:
    hub.add_repo(REPO, {"m-Q4_K_M.gguf": large})
    hub.faults.add(ContentRange(shift=4096), origin="cdn")
    (variant,) = (await client.get(REPO)).variants
    assert variant.memory is not None
    assert variant.memory.kv_bytes_per_1k_tokens is None
