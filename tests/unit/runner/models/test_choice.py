"""What is chosen to be run, and on what."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from slipway_runner.backends.base import Found, NotUsable, Settings, Task
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.select import SHIPPED
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.models.choice import make_plan, place_again
from slipway_runner.models.plan import Backends, Plan, Surroundings
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import RepoSource, Spec
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.memory import CacheShape
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.names import FilePath

GIB = 1 << 30
COMMIT = "a" * 40
SPEC = Spec(source=RepoSource(repo_id="owner/model"))
LLAMA = ModelFacts(architecture="llama")
CAUSAL = ModelFacts(architecture="LlamaForCausalLM")


def device(uuid: str, kind: DeviceKind, free: int, *, usable: bool = True) -> Device:
    return Device(
        uuid=uuid,
        kind=kind,
        index=0,
        name=uuid,
        memory_total=free,
        memory_used=0,
        memory_free=free,
        usable=usable,
        why_not="" if usable else "it fell off the bus",
    )


CPU = device("cpu", DeviceKind.CPU, 64 * GIB)
GPU1 = device("GPU-1", DeviceKind.CUDA, 16 * GIB)
GPU2 = device("GPU-2", DeviceKind.CUDA, 24 * GIB)
BROKEN = device("GPU-3", DeviceKind.CUDA, 80 * GIB, usable=False)

ON_CPU = frozenset({DeviceKind.CPU})
ON_BOTH = frozenset({DeviceKind.CPU, DeviceKind.CUDA})


def around(kinds: Mapping[str, frozenset[DeviceKind]], *devices: Device, **more: bool) -> Surroundings:
    found: dict[str, Found | NotUsable] = {
        one.name: Found(backend=one.name, version="1", program=("x",), kinds=kinds[one.name])
        if one.name in kinds
        else NotUsable(backend=one.name, why=f"{one.name} is not installed")
        for one in SHIPPED
    }
    return Surroundings(
        backends=Backends(adapters=SHIPPED, found=found),
        devices=devices,
        free={one.uuid: one.memory_free for one in devices},
        **more,
    )


def repo(*paths: str, size: int = GIB, **more: object) -> Description:
    files = tuple(RepoFile(path=FilePath.parse(path), size_bytes=size) for path in sorted(paths))
    return replace(Description(name="owner/model", commit=COMMIT, files=files), **more)  # type: ignore[arg-type]


GGUF = repo("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-F16.gguf", "README.md")
SAFETENSORS = repo(
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json", "tokenizer.json"
)
EVERYWHERE = {"llama-server": ON_BOTH, "vllm": ON_BOTH, "transformers": ON_BOTH}


def plan(description: Description, surroundings: Surroundings, facts: ModelFacts = LLAMA, **spec: object) -> Plan:
    return make_plan(replace(SPEC, **spec), description, lambda _: facts, surroundings)  # type: ignore[arg-type]


def refused(description: Description, surroundings: Surroundings, facts: ModelFacts = LLAMA, **spec: object) -> Fault:
    with pytest.raises(Fault) as fault:
        plan(description, surroundings, facts, **spec)
    return fault.value


def test_the_default_quantisation_with_its_projector_on_llama_server() -> None:
    chosen = plan(GGUF, around(EVERYWHERE, CPU))
    assert (chosen.backend, chosen.variant, chosen.task) == ("llama-server", "Q4_K_M", Task.GENERATE)
    assert chosen.weights == ("m-Q4_K_M.gguf",)
    assert chosen.mmproj == "mmproj-m-F16.gguf"
    assert "m-Q8_0.gguf" not in chosen.wanted
    assert chosen.devices == ()
    assert chosen.spec.backend == "llama-server"
    assert chosen.spec.variant == "Q4_K_M"


@pytest.mark.parametrize("choice", [{"variant": "Q8_0"}, {"file": "m-Q8_0.gguf"}])
def test_a_variant_by_name_and_by_file_are_the_same_model(choice: Mapping[str, str]) -> None:
    chosen = plan(GGUF, around(EVERYWHERE, CPU), LLAMA, **choice)
    assert chosen.weights == ("m-Q8_0.gguf",)
    assert chosen.identity == plan(GGUF, around(EVERYWHERE, CPU), variant="Q8_0").identity


def test_the_identity_has_the_commit_and_the_spec_what_was_asked_for() -> None:
    chosen = plan(GGUF, around(EVERYWHERE, CPU))
    assert chosen.spec.source == RepoSource(repo_id="owner/model", revision="main")
    assert chosen.identity.source == RepoSource(repo_id="owner/model", revision=COMMIT)


def test_an_unknown_variant_is_told_with_those_there_are() -> None:
    fault = refused(GGUF, around(EVERYWHERE, CPU), variant="Q3_K")
    assert (fault.reason, fault.resource) == (Reason.VARIANT_NOT_FOUND, "Q3_K")
    assert "Q4_K_M, Q8_0" in fault.text


def test_a_missing_part_is_told_by_name() -> None:
    fault = refused(repo("m-Q4_0-00001-of-00002.gguf"), around(EVERYWHERE, CPU))
    assert (fault.reason, fault.resource) == (Reason.MODEL_FILE_MISSING, "m-Q4_0-00002-of-00002.gguf")
    assert "m-Q4_0-00002-of-00002.gguf" in fault.text


def test_no_weights_at_all() -> None:
    fault = refused(repo("README.md"), around(EVERYWHERE, CPU))
    assert (fault.reason, fault.resource) == (Reason.VARIANT_NOT_FOUND, "owner/model")


def test_safetensors_go_to_vllm_on_a_gpu_and_to_transformers_without() -> None:
    assert plan(SAFETENSORS, around(EVERYWHERE, CPU, GPU1), CAUSAL).backend == "vllm"
    on_cpu = plan(SAFETENSORS, around(EVERYWHERE, CPU), CAUSAL)
    assert on_cpu.backend == "transformers"
    assert {"config.json", "tokenizer.json"} <= set(on_cpu.wanted)


def test_a_build_without_the_gpus_kind_runs_on_the_cpu() -> None:
    chosen = plan(GGUF, around({"llama-server": ON_CPU}, CPU, GPU1))
    assert (chosen.backend, chosen.devices) == ("llama-server", ())


def test_a_repository_of_both_formats_runs_as_what_a_backend_here_can_run() -> None:
    both = repo("model.safetensors", "config.json", "m-Q4_K_M.gguf")
    assert plan(both, around({"llama-server": ON_CPU}, CPU)).variant == "Q4_K_M"
    assert plan(both, around({"transformers": ON_CPU}, CPU), CAUSAL).variant == "safetensors"


def test_what_nobody_here_can_run_is_told_with_each_reason() -> None:
    fault = refused(SAFETENSORS, around({"llama-server": ON_CPU}, CPU), CAUSAL)
    assert fault.reason is Reason.BACKEND_UNAVAILABLE
    assert "vllm is not installed" in fault.text
    onnx = refused(repo("model.onnx"), around(EVERYWHERE, CPU))
    assert onnx.reason is Reason.BACKEND_UNSUITABLE


def test_code_of_the_repository_needs_trust() -> None:
    facts = ModelFacts(architecture="StrangeForCausalLM", remote_code=True)
    assert refused(SAFETENSORS, around(EVERYWHERE, CPU), facts).reason is Reason.REMOTE_CODE_REQUIRED
    assert plan(SAFETENSORS, around(EVERYWHERE, CPU, trust_remote_code=True), facts).remote_code


@pytest.mark.parametrize(
    ("description", "facts", "task"),
    [
        (GGUF, ModelFacts(architecture="bert", pooling="MEAN"), Task.EMBED),
        (GGUF, ModelFacts(architecture="bert", pooling="RANK"), Task.RERANK),
        (replace(GGUF, pipeline_tag="text-generation"), LLAMA, Task.GENERATE),
        (replace(GGUF, pipeline_tag="sentence-similarity"), ModelFacts(architecture="bert"), Task.EMBED),
        (GGUF, ModelFacts(), Task.GENERATE),
    ],
)
def test_the_task_is_guessed_from_tags_and_headers(description: Description, facts: ModelFacts, task: Task) -> None:
    assert plan(description, around(EVERYWHERE, CPU), facts).task is task


def test_the_smallest_gpu_with_room_is_taken() -> None:
    assert plan(GGUF, around(EVERYWHERE, CPU, GPU2, GPU1)).devices == (GPU1,)


def test_llama_server_spreads_over_gpus_when_one_is_too_small() -> None:
    big = repo("m-Q4_K_M.gguf", size=26 * GIB)
    chosen = plan(big, around(EVERYWHERE, CPU, GPU1, replace(GPU2, memory_free=16 * GIB)))
    assert len(chosen.devices) == 2
    assert set(chosen.needed) == {"GPU-1", "GPU-2"}


def test_tensor_parallel_size_is_how_many() -> None:
    chosen = plan(SAFETENSORS, around(EVERYWHERE, CPU, GPU1, GPU2), CAUSAL, settings=Settings(tensor_parallel_size=2))
    assert {one.uuid for one in chosen.devices} == {"GPU-1", "GPU-2"}


def test_devices_asked_for_are_all_used_and_unknown_or_broken_ones_are_refused() -> None:
    chosen = plan(GGUF, around(EVERYWHERE, CPU, GPU1, GPU2), devices=("GPU-2",))
    assert chosen.devices == (GPU2,)
    assert plan(GGUF, around(EVERYWHERE, CPU, GPU1), devices=("cpu",)).devices == ()
    absent = refused(GGUF, around(EVERYWHERE, CPU), devices=("GPU-9",))
    assert (absent.reason, absent.resource) == (Reason.DEVICE_NOT_FOUND, "GPU-9")
    broken = refused(GGUF, around(EVERYWHERE, CPU, BROKEN), devices=("GPU-3",))
    assert broken.reason is Reason.DEVICE_NOT_FOUND
    assert "fell off the bus" in broken.text
    assert plan(GGUF, around(EVERYWHERE, CPU, BROKEN)).devices == ()


def test_a_kind_of_device_that_is_not_there() -> None:
    fault = refused(GGUF, around(EVERYWHERE, CPU), settings=Settings(device=DeviceKind.CUDA))
    assert fault.reason is Reason.DEVICE_NOT_FOUND


@pytest.mark.parametrize(
    ("devices", "kind", "wrong"),
    [
        (("cpu",), DeviceKind.CUDA, "spec.devices[0]"),
        (("GPU-1", "cpu"), DeviceKind.CUDA, "spec.devices[1]"),
        (("GPU-1",), DeviceKind.CPU, "spec.devices[0]"),
        (("GPU-1",), DeviceKind.VULKAN, "spec.devices[0]"),
    ],
)
def test_devices_of_another_kind_than_the_one_asked_for_are_refused_and_both_are_named(
    devices: tuple[str, ...], kind: DeviceKind, wrong: str
) -> None:
    fault = refused(GGUF, around(EVERYWHERE, CPU, GPU1), devices=devices, settings=Settings(device=kind))
    assert fault.reason is Reason.INVALID_FIELDS
    assert [one.field for one in fault.fields] == [wrong, "spec.settings.device"]
    assert plan(GGUF, around(EVERYWHERE, CPU), devices=("cpu",), settings=Settings(device=DeviceKind.CPU)).devices == ()


def test_what_does_not_fit_is_refused_with_needed_and_free() -> None:
    small = replace(CPU, memory_free=GIB // 2)
    fault = refused(GGUF, around(EVERYWHERE, small))
    assert fault.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
    assert fault.preconditions[0].subject == "cpu"


def test_context_counts_when_the_header_tells_its_cost() -> None:
    cache = CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128)
    facts = replace(LLAMA, cache=cache, context_length=131_072)
    usual = plan(GGUF, around(EVERYWHERE, CPU), facts)
    long = plan(GGUF, around(EVERYWHERE, CPU), facts, settings=Settings(context_length=32_768))
    assert long.planned_bytes - usual.planned_bytes == (32_768 - 8192) * cache.bytes_per_token


@pytest.mark.parametrize(
    ("description", "devices", "flags", "tokens"),
    [
        (GGUF, (CPU,), {}, 4 * 4096),
        (GGUF, (CPU,), {"kv-unified": ""}, 4096),
        (SAFETENSORS, (CPU, GPU1), {}, 4096),
    ],
)
def test_the_context_of_every_request_counts_where_they_share_none(
    description: Description, devices: tuple[Device, ...], flags: Mapping[str, str], tokens: int
) -> None:
    cache = CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128)
    facts, settings = ModelFacts(architecture="LlamaForCausalLM"), Settings(context_length=4096, parallel_requests=4)
    without = plan(description, around(EVERYWHERE, *devices), facts, settings=settings, flags=flags)
    known = plan(description, around(EVERYWHERE, *devices), replace(facts, cache=cache), settings=settings, flags=flags)
    assert known.planned_bytes - without.planned_bytes == tokens * cache.bytes_per_token


def test_what_the_files_add_is_placed_anew_where_it_no_longer_fits() -> None:
    facts = replace(LLAMA, cache=CacheShape(kv_heads=(8,) * 32, key_length=128, value_length=128))
    guessed = plan(GGUF, around(EVERYWHERE, GPU1, GPU2, CPU), settings=Settings(context_length=200_000))
    assert [device.uuid for device in guessed.devices] == ["GPU-1"]
    known = guessed.knowing(facts, LlamaServer())
    assert dict(known.needed) == {"GPU-1": known.planned_bytes}
    everything, free = (GPU1, GPU2, CPU), {"GPU-1": 16 * GIB, "GPU-2": 24 * GIB, "cpu": 64 * GIB}
    placed = place_again(known, everything, {**free, "GPU-2": 20 * GIB})
    assert {device.uuid for device in placed.devices} == set(placed.needed) == {"GPU-1", "GPU-2"}
    assert [device.uuid for device in place_again(known, everything, {**free, "GPU-2": 30 * GIB}).devices] == ["GPU-2"]
    with pytest.raises(Fault) as refused:
        place_again(known, everything, dict.fromkeys(free, 4 * GIB))
    assert refused.value.reason is Reason.DEVICE_MEMORY_INSUFFICIENT
    assert guessed.knowing(LLAMA, LlamaServer()).needed == guessed.needed
