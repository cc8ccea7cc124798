"""Command lines, environments and questions."""

import json
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import pytest
from slipway_runner.backends.base import Backend, Format, HttpQuestion, Launch, Settings, StartLimits, Stdin, Task
from slipway_runner.backends.command import INFINITY
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.select import SHIPPED
from slipway_runner.backends.sglang import Sglang
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.backends.vllm import Vllm
from slipway_runner.devices.device import DeviceKind
from slipway_service.fault import Fault, Reason

from tests.unit.runner.backends.plans import AMD, GPU, found, gguf, option, plan, safetensors

NEW_LLAMA = frozenset({"--no-webui", "--offline", "--sse-ping-interval", "--device", "--kv-unified", "--flash-attn"})
LLAMA = found("llama-server", DeviceKind.CPU, DeviceKind.CUDA, flags=NEW_LLAMA)
TORCH = found("transformers", DeviceKind.CPU, DeviceKind.CUDA)


def llama(task: Task = Task.GENERATE, **changes: Any) -> Launch:
    return LlamaServer().launch(plan(LLAMA, gguf(), task, **changes))


def body(question: HttpQuestion | None) -> Any:
    assert question is not None
    assert question.body is not None
    return json.loads(question.body)


def test_llama_server_on_the_cpu() -> None:
    assert llama().argv == (
        "/opt/x/bin/server",
        *("--model", "/hub/models--o--m/snapshots/0123/m-Q4_K_M.gguf", "--alias", "m"),
        *("--host", "127.0.0.1", "--port", "18000", "--metrics"),
        *("--no-webui", "--offline", "--sse-ping-interval", "1", "--device", "none"),
    )


def test_an_older_llama_server_is_given_only_what_it_has() -> None:
    old = found("llama-server", flags=frozenset({"--model"}))
    argv = LlamaServer().launch(plan(old, gguf())).argv
    assert not {"--no-webui", "--offline", "--sse-ping-interval", "--device"} & set(argv)


def test_llama_server_as_a_child_of_a_router_is_told_by_its_input_to_leave() -> None:
    launch = llama()
    assert launch.env["LLAMA_SERVER_ROUTER_PORT"]
    assert (launch.stdin, launch.farewell) == (Stdin.FIFO, b"cmd_router_to_child:exit\n")


@pytest.mark.parametrize(
    ("settings", "flags", "expected"),
    [
        (Settings(context_length=4096), {}, {"--ctx-size": "4096", "--parallel": None}),
        (Settings(context_length=4096, parallel_requests=4), {}, {"--ctx-size": "16384", "--parallel": "4"}),
        (Settings(context_length=4096, parallel_requests=4), {"kv-unified": ""}, {"--ctx-size": "4096"}),
        (Settings(gpu_layers=20), {}, {"--gpu-layers": "20", "--device": None}),
        (Settings(gpu_layers=-1), {}, {"--gpu-layers": "999"}),
        (Settings(device=DeviceKind.CPU, gpu_layers=20), {}, {"--gpu-layers": None, "--device": "none"}),
        (Settings(), {"flash-attn": "on"}, {"--flash-attn": "on"}),
    ],
)
def test_settings_of_llama_server(settings: Settings, flags: dict[str, str], expected: dict[str, str | None]) -> None:
    argv = llama(settings=settings, flags=flags, devices=(GPU,)).argv
    assert {name: option(argv, name) for name in expected} == expected


def test_llama_server_embeds_reranks_and_sees() -> None:
    assert "--embeddings" in llama(Task.EMBED).argv
    assert "--reranking" in llama(Task.RERANK).argv
    projector = Path("/hub/mmproj-F16.gguf")
    argv = LlamaServer().launch(plan(LLAMA, gguf(mmproj=projector))).argv
    assert option(argv, "--mmproj") == str(projector)


def test_a_split_model_is_named_by_its_first_part() -> None:
    parts = tuple(Path(f"/m/x-0000{n}-of-00003.gguf") for n in (1, 2, 3))
    argv = LlamaServer().launch(plan(LLAMA, gguf(weights=parts))).argv
    assert option(argv, "--model") == str(parts[0])
    assert str(parts[1]) not in argv


def test_transformers_is_started_empty_and_then_told_to_load_a_path() -> None:
    launch = TransformersServe().launch(plan(TORCH, safetensors()))
    root = "/hub/models--o--m/snapshots/0123"
    assert launch.argv == (
        "/opt/x/bin/server",
        *("--host", "127.0.0.1", "--port", "18000", "--model-timeout", "-1", "--device", "cpu"),
    )
    assert launch.load is not None
    assert (launch.load.path, body(launch.load)) == ("/load_model", {"model": root})
    assert launch.model_field == body(launch.question)["model"] == root
    assert launch.api_key is None


@pytest.mark.parametrize(
    ("devices", "device"), [((), "cpu"), ((GPU,), "cuda:0"), ((AMD,), "cuda:0"), ((GPU, GPU), "auto")]
)
def test_devices_of_transformers(devices: Any, device: str) -> None:
    assert option(TransformersServe().launch(plan(TORCH, safetensors(), devices=devices)).argv, "--device") == device


def test_vllm_on_a_gpu() -> None:
    settings = Settings(
        context_length=8192,
        dtype="bfloat16",
        tensor_parallel_size=2,
        parallel_requests=64,
        device_memory_share=0.8,
    )
    which = found("vllm", DeviceKind.CUDA)
    argv = Vllm().launch(plan(which, safetensors(), settings=settings, devices=(GPU, GPU))).argv
    assert argv == (
        *("/opt/x/bin/server", "/hub/models--o--m/snapshots/0123", "--served-model-name", "m"),
        *("--host", "127.0.0.1", "--port", "18000", "--uvicorn-log-level", "warning"),
        *("--max-model-len", "8192", "--dtype", "bfloat16", "--tensor-parallel-size", "2", "--max-num-seqs", "64"),
        *("--gpu-memory-utilization", "0.8"),
    )


def test_vllm_on_the_cpu_does_not_ask_for_all_memory() -> None:
    launch = Vllm().launch(plan(found("vllm"), safetensors()))
    assert option(launch.argv, "--gpu-memory-utilization") == "0.1"
    assert launch.env["VLLM_CPU_KVCACHE_SPACE"] == "4"
    own = Vllm().launch(plan(found("vllm"), safetensors(), environment={"VLLM_CPU_KVCACHE_SPACE": "1"}))
    assert own.env["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.parametrize("task", [Task.EMBED, Task.RERANK])
def test_vllm_pools_for_embeddings_and_scores(task: Task) -> None:
    assert option(Vllm().launch(plan(found("vllm"), safetensors(), task)).argv, "--runner") == "pooling"


def test_sglang() -> None:
    launch = Sglang().launch(plan(found("sglang", DeviceKind.CUDA), safetensors(), devices=(GPU,)))
    assert option(launch.argv, "--model-path") == "/hub/models--o--m/snapshots/0123"
    assert option(launch.argv, "--served-model-name") == "m"
    assert "secret" not in " ".join(launch.argv)
    assert launch.env["SGL_FORCE_SHUTDOWN"] == "true"


def test_infinity() -> None:
    launch = INFINITY.launch(plan(found("infinity"), safetensors(), Task.EMBED))
    assert launch.argv[:4] == ("/opt/x/bin/server", "v2", "--model-id", "/hub/models--o--m/snapshots/0123")
    assert "--no-trust-remote-code" in launch.argv
    assert (launch.question.path, launch.paths) == ("/embeddings", {"/v1/embeddings": "/embeddings"})
    assert launch.env["INFINITY_API_KEY"] == "secret"


ALL: tuple[tuple[Backend, Task], ...] = (
    (LlamaServer(), Task.GENERATE),
    (LlamaServer(), Task.EMBED),
    (LlamaServer(), Task.RERANK),
    (TransformersServe(), Task.GENERATE),
    (Vllm(), Task.GENERATE),
    (Vllm(), Task.EMBED),
    (Vllm(), Task.RERANK),
    (Sglang(), Task.GENERATE),
    (Sglang(), Task.EMBED),
    (INFINITY, Task.EMBED),
    (INFINITY, Task.RERANK),
)


def launched(backend: Backend, task: Task, **changes: Any) -> Launch:
    files = gguf() if isinstance(backend, LlamaServer) else safetensors()
    return backend.launch(plan(found(backend.name, *DeviceKind), files, task, **changes))


@pytest.mark.parametrize(("backend", "task"), ALL)
class TestEveryBackend:
    def test_its_environment_is_built_from_nothing(
        self, backend: Backend, task: Task, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET", "ours")
        env = launched(backend, task).env
        assert "AWS_SECRET" not in env
        assert (env["HOME"], env["CUDA_VISIBLE_DEVICES"]) == ("/var/lib/slipway/models/m", "")
        assert env["PATH"].startswith("/opt/x/bin:")

    def test_it_sees_only_the_devices_of_the_plan(self, backend: Backend, task: Task) -> None:
        assert launched(backend, task, devices=(GPU,)).env["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"
        amd = launched(backend, task, devices=(AMD,)).env
        assert (amd["CUDA_VISIBLE_DEVICES"], amd["ROCR_VISIBLE_DEVICES"]) == ("", "GPU-0123")

    def test_the_operator_may_add_variables_but_not_change_its_own(self, backend: Backend, task: Task) -> None:
        mine = {"LD_LIBRARY_PATH": "/opt/cuda/lib", "CUDA_VISIBLE_DEVICES": "0"}
        env = launched(backend, task, operator_environment=mine).env
        assert (env["LD_LIBRARY_PATH"], env["CUDA_VISIBLE_DEVICES"]) == ("/opt/cuda/lib", "")

    def test_its_key_is_in_no_argument(self, backend: Backend, task: Task) -> None:
        launch = launched(backend, task)
        assert "secret" not in " ".join(launch.argv)
        assert launch.api_key in (None, "secret")
        sent = launch.question.headers.get("Authorization")
        assert sent == ("Bearer secret" if launch.api_key else None)
        assert "secret" not in repr(launch)

    def test_the_path_that_is_shown_is_the_one_it_is_given(self, backend: Backend, task: Task) -> None:
        launch = launched(backend, task)
        given = body(launch.load)["model"] if launch.load else ""
        assert str(launch.model_path) in (*launch.argv, given)

    def test_it_listens_where_it_is_told(self, backend: Backend, task: Task) -> None:
        argv = launched(backend, task).argv
        assert (option(argv, "--host"), option(argv, "--port")) == ("127.0.0.1", "18000")

    def test_its_question_is_for_the_task_and_the_model(self, backend: Backend, task: Task) -> None:
        launch = launched(backend, task)
        asked = body(launch.question)
        keys = {Task.GENERATE: "prompt", Task.EMBED: "input", Task.RERANK: "documents"}
        assert asked["model"] == launch.model_field
        assert keys[task] in asked
        assert launch.question.path in launch.paths.values()

    def test_all_settings_that_are_wrong_are_told_at_once(self, backend: Backend, task: Task) -> None:
        wrong = Settings(context_length=0, dtype="int3", gpu_layers=-5, device_memory_share=2.0, parallel_requests=0)
        with pytest.raises(Fault) as refused:
            launched(backend, task, settings=wrong)
        assert refused.value.reason is Reason.INVALID_FIELDS
        assert {entry.field for entry in refused.value.fields} == {
            f"spec.settings.{name}"
            for name in ("context_length", "dtype", "gpu_layers", "gpu_memory_utilization", "parallel_requests")
        }

    def test_what_is_on_no_list_is_refused(self, backend: Backend, task: Task) -> None:
        for changes, reason in (
            ({"flags": {"api-key": "x"}}, Reason.FLAG_NOT_ALLOWED),
            ({"environment": {"LD_PRELOAD": "x"}}, Reason.ENVIRONMENT_NOT_ALLOWED),
        ):
            with pytest.raises(Fault) as refused:
                launched(backend, task, **changes)
            assert refused.value.reason is reason

    def test_its_ladder_ends_in_a_kill_after_at_most_half_a_minute(self, backend: Backend, task: Task) -> None:
        *polite, last = backend.stop_ladder
        assert polite[0].signal is SIGTERM
        assert last.signal is SIGKILL
        assert sum(step.wait_seconds for step in polite) <= 30


@pytest.mark.parametrize("backend", [TransformersServe(), Vllm(), Sglang(), INFINITY])
def test_code_of_a_repository_runs_only_where_the_operator_allows_it(backend: Backend) -> None:
    task = Task.EMBED if backend is INFINITY else Task.GENERATE
    files = safetensors(remote_code=True)
    with pytest.raises(Fault) as refused:
        backend.launch(plan(found(backend.name), files, task))
    assert refused.value.reason is Reason.REMOTE_CODE_REQUIRED
    allowed = backend.launch(plan(found(backend.name), files, task, trust_remote_code=True))
    assert ("--trust-remote-code" in allowed.argv) == (backend is not INFINITY)
    unneeded = backend.launch(plan(found(backend.name), safetensors(), task, trust_remote_code=True))
    assert "--trust-remote-code" not in unneeded.argv


def test_transformers_is_interrupted_when_a_stream_holds_it() -> None:
    assert TransformersServe().stop_ladder[1].signal is SIGINT


def test_the_ceiling_of_a_start_grows_with_the_model() -> None:
    limits = StartLimits(stall_seconds=1.0, floor_seconds=120.0, slowest_bytes_per_second=10)
    assert [limits.ceiling_seconds(size) for size in (0, 100)] == [120.0, 130.0]
    assert {one.name: one.start_limits.floor_seconds for one in SHIPPED} == {
        "llama-server": 120.0,
        "vllm": 300.0,
        "sglang": 300.0,
        "transformers": 300.0,
        "infinity": 300.0,
    }


@pytest.mark.parametrize(
    ("status", "answer", "good", "reason"),
    [
        (200, b'{"choices": []}', True, None),
        (200, b"", False, None),
        (200, b"<html>", False, None),
        (200, b'{"error": "x"}', False, None),
        (503, b'{"error": {"message": "Loading model"}}', False, None),
        (500, b"Internal Server Error", False, None),
        (401, b'{"error": "key"}', False, Reason.BACKEND_UNSUITABLE),
        (404, b'{"detail": "Not Found"}', False, Reason.BACKEND_UNSUITABLE),
        (400, b'{"error": "no such model"}', False, Reason.BACKEND_UNSUITABLE),
    ],
)
def test_answers_to_a_real_request(status: int, answer: bytes, good: bool, reason: Reason | None) -> None:
    judgement = llama().question.judge(status, answer)
    assert judgement.good == good
    assert (judgement.cause.reason if judgement.cause else None) == reason


def test_health() -> None:
    vllm = Vllm().launch(plan(found("vllm"), safetensors())).liveness.judge
    assert vllm(200, b"").good
    dead = vllm(503, b"").cause
    assert dead is not None
    assert dead.reason is Reason.BACKEND_ENGINE_DEAD
    loading = llama().liveness.judge(503, b"Loading model")
    assert (loading.good, loading.cause) == (False, None)


def test_formats_are_what_they_are_called() -> None:
    assert [str(one) for one in (Format.GGUF, Task.EMBED)] == ["gguf", "embed"]
