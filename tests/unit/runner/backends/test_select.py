"""Which backend runs a model, and why the others do not."""

from collections.abc import Mapping
from typing import Any

import pytest
from slipway_runner.backends.base import Format, Found, ModelFiles, NotUsable, Task
from slipway_runner.backends.select import SHIPPED, Choice, choose
from slipway_runner.backends.tasks import default_task
from slipway_runner.devices.device import Device, DeviceKind
from slipway_service.fault import Fault, Reason

from tests.unit.runner.backends.plans import AMD, GPU, found, gguf, safetensors

ALL: dict[str, Found | NotUsable] = {
    "llama-server": found("llama-server", DeviceKind.CPU, DeviceKind.CUDA),
    "vllm": found("vllm", DeviceKind.CUDA),
    "sglang": found("sglang", DeviceKind.CUDA),
    "transformers": found("transformers", DeviceKind.CPU, DeviceKind.CUDA),
    "infinity": found("infinity", DeviceKind.CPU, DeviceKind.CUDA),
}

BERT = safetensors(architecture="BertModel")
RERANKER = safetensors(architecture="BertForSequenceClassification")


def without(*names: str) -> Mapping[str, Found | NotUsable]:
    return {**ALL, **{name: NotUsable(backend=name, why=f"there is no {name}") for name in names}}


def chosen(
    files: ModelFiles,
    task: Task,
    *devices: Device,
    there: Mapping[str, Found | NotUsable] = ALL,
    **more: Any,
) -> Choice:
    return choose(SHIPPED, there, files, task, devices, **more)


def refused(*arguments: Any, **more: Any) -> Fault:
    with pytest.raises(Fault) as fault:
        chosen(*arguments, **more)
    return fault.value


@pytest.mark.parametrize(
    ("files", "task", "devices", "there", "backend"),
    [
        (gguf(), Task.GENERATE, (), ALL, "llama-server"),
        (gguf(), Task.GENERATE, (GPU,), ALL, "llama-server"),
        (gguf(architecture="bert"), Task.EMBED, (), ALL, "llama-server"),
        (gguf(architecture="bert", ranks=True), Task.RERANK, (), ALL, "llama-server"),
        (safetensors(), Task.GENERATE, (GPU,), ALL, "vllm"),
        (safetensors(), Task.GENERATE, (GPU,), without("vllm"), "sglang"),
        (safetensors(), Task.GENERATE, (GPU,), without("vllm", "sglang"), "transformers"),
        (safetensors(), Task.GENERATE, (), ALL, "transformers"),
        (safetensors(), Task.GENERATE, (), {**ALL, "vllm": found("vllm", DeviceKind.CPU)}, "transformers"),
        (BERT, Task.EMBED, (GPU,), ALL, "vllm"),
        (BERT, Task.EMBED, (), ALL, "infinity"),
        (RERANKER, Task.RERANK, (), ALL, "infinity"),
        (RERANKER, Task.RERANK, (), {**without("infinity"), "vllm": found("vllm", DeviceKind.CPU)}, "vllm"),
    ],
)
def test_the_first_that_suits(files: Any, task: Any, devices: Any, there: Any, backend: str) -> None:
    assert chosen(files, task, *devices, there=there).backend.name == backend


def test_why_the_others_are_not_taken_is_told() -> None:
    choice = chosen(safetensors(), Task.GENERATE, there=without("vllm"))
    assert choice.others == {
        "llama-server": "llama-server runs GGUF, and o/m is safetensors",
        "vllm": "there is no vllm",
        "sglang": "SGLang does not run on cpu here",
        "infinity": "infinity has no endpoint to generate",
    }
    assert chosen(safetensors(), Task.GENERATE, GPU).others["sglang"] == "vllm comes first"


def test_who_names_a_backend_gets_it_or_is_told_why_not() -> None:
    choice = chosen(safetensors(), Task.GENERATE, GPU, wanted="transformers")
    assert choice.backend.name == "transformers"
    assert choice.others["vllm"] == "not asked for"
    unsuitable = refused(gguf(), Task.GENERATE, wanted="vllm")
    assert unsuitable.reason is Reason.BACKEND_UNSUITABLE
    assert "vLLM is used for safetensors" in unsuitable.text
    gone = refused(safetensors(), Task.GENERATE, there=without("transformers"), wanted="transformers")
    assert (gone.reason, "there is no transformers" in gone.text) == (Reason.BACKEND_UNAVAILABLE, True)
    unknown = refused(gguf(), Task.GENERATE, wanted="ollama")
    assert (unknown.reason, "llama-server" in unknown.text) == (Reason.BACKEND_UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("files", "task", "there", "reason"),
    [
        (gguf(), Task.GENERATE, without("llama-server"), Reason.BACKEND_UNAVAILABLE),
        (gguf(architecture="bert"), Task.GENERATE, ALL, Reason.BACKEND_UNSUITABLE),
        (safetensors(format=Format.ONNX), Task.GENERATE, ALL, Reason.BACKEND_UNSUITABLE),
        (BERT, Task.GENERATE, ALL, Reason.BACKEND_UNSUITABLE),
        (BERT, Task.EMBED, without("infinity"), Reason.BACKEND_UNAVAILABLE),
        (safetensors(), Task.GENERATE, without("transformers", "vllm"), Reason.BACKEND_UNAVAILABLE),
    ],
)
def test_what_nothing_here_can_run_is_refused_with_all_reasons(files: Any, task: Any, there: Any, reason: Any) -> None:
    fault = refused(files, task, there=there)
    assert fault.reason is reason
    assert set(fault.facts) == set(ALL)


def test_code_of_a_repository() -> None:
    files = safetensors(remote_code=True)
    assert refused(files, Task.GENERATE).reason is Reason.REMOTE_CODE_REQUIRED
    assert chosen(files, Task.GENERATE, trust_remote_code=True).backend.name == "transformers"


@pytest.mark.parametrize(("device", "words"), [(GPU, "cuda"), (AMD, "rocm")])
def test_a_build_without_the_device_is_not_taken(device: Device, words: str) -> None:
    cpu_only = {name: found(name) for name in ALL}
    fault = refused(gguf(), Task.GENERATE, device, there=cpu_only)
    assert f"this build of llama-server has no {words}" in fault.text


@pytest.mark.parametrize("place", ["/hub/a@b/snapshots/0", "/hub/a:b.gguf/snapshots/0"])
def test_transformers_would_misread_some_paths(place: str) -> None:
    fault = refused(safetensors(root=place), Task.GENERATE, wanted="transformers")
    assert "takes the @ or :" in fault.text


@pytest.mark.parametrize(
    ("files", "task"),
    [
        (gguf(), Task.GENERATE),
        (gguf(architecture=""), Task.GENERATE),
        (gguf(architecture="bert"), Task.EMBED),
        (gguf(architecture="bert", ranks=True), Task.RERANK),
        (gguf(architecture="qwen3", ranks=True), Task.RERANK),
        (safetensors(), Task.GENERATE),
        (safetensors(architecture="Gemma3ForConditionalGeneration"), Task.GENERATE),
        (safetensors(architecture="GPT2LMHeadModel"), Task.GENERATE),
        (safetensors(architecture=""), Task.GENERATE),
        (BERT, Task.EMBED),
        (RERANKER, Task.RERANK),
    ],
)
def test_what_a_model_is_for_where_nobody_says(files: ModelFiles, task: Task) -> None:
    assert default_task(files) is task
