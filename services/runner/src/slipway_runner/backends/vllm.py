"""vLLM's OpenAI server: safetensors models on GPUs, for text, embeddings and reranking; on the CPU where built for it.

Facts are from vLLM 0.32 for the CPU, run and read; lines that only a GPU brings are from its source. Its log goes to
stdout, bars and uvicorn's lines to stderr, tracebacks come in single characters. The server process outlives its
engine by seconds, and then exits with 0.
"""

import re
from collections.abc import Iterator, Mapping
from signal import SIGKILL, SIGTERM

from slipway_service.fault import Reason

from slipway_runner.backends import openai
from slipway_runner.backends.base import (
    End,
    Format,
    Found,
    Host,
    Judgement,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Reader,
    Settings,
    StartLimits,
    StopStep,
    Task,
    judge_status,
)
from slipway_runner.backends.ends import explain_end, read_python_cause
from slipway_runner.backends.flags import Rules, choice, flag_arguments, integer, number, pattern, switch
from slipway_runner.backends.programs import candidates, distributions, missing_kinds, torch_kinds
from slipway_runner.backends.python_server import ENGINE_SETTINGS, ENVIRONMENT, bar_signals, offline_environment
from slipway_runner.backends.settings import refuse_remote_code, refuse_settings
from slipway_runner.backends.tasks import generates, why_no_text
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.parse import parse_bar
from slipway_runner.progress.signals import Cause, Detail, InForce, LoadStage, Ready, Signal, Stage

NAME = "vllm"

CPU_MEMORY_SHARE = 0.1
"""Of the host's memory that must be free to start on the CPU. vLLM asks for 0.92 of it, and no busy host has that; the
key-value cache is given in bytes instead."""

CPU_CACHE_GIB = 4
"""For the key-value cache on the CPU, where the caller names no other."""

FLAGS: Rules = {
    "enforce-eager": switch,
    "max-num-batched-tokens": integer(1, 1 << 24),
    "enable-prefix-caching": switch,
    "no-enable-prefix-caching": switch,
    "enable-chunked-prefill": switch,
    "no-enable-chunked-prefill": switch,
    "kv-cache-dtype": choice("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"),
    "quantization": pattern(r"[a-z0-9][a-z0-9_-]{0,39}", "a name such as awq, gptq, fp8"),
    "load-format": choice("auto", "safetensors", "fastsafetensors"),
    "safetensors-load-strategy": choice("lazy", "eager", "prefetch"),
    "cpu-offload-gb": number(0, 4096),
    "block-size": choice("1", "8", "16", "32", "64", "128"),
    "pipeline-parallel-size": integer(1, 64),
    "data-parallel-size": integer(1, 64),
    "enable-expert-parallel": switch,
    "disable-custom-all-reduce": switch,
    "enable-auto-tool-choice": switch,
    "tool-call-parser": pattern(r"[a-z0-9][a-z0-9_]{0,39}", "a name such as hermes"),
    "reasoning-parser": pattern(r"[a-z0-9][a-z0-9_]{0,39}", "a name such as qwen3"),
    "tokenizer-mode": choice("auto", "slow", "mistral"),
    "generation-config": choice("auto", "vllm"),
    "convert": choice("auto", "none", "embed", "classify"),
    "max-logprobs": integer(-1, 1 << 20),
    "seed": integer(0, (1 << 32) - 1),
}

VARIABLES: Rules = {
    **ENVIRONMENT,
    "VLLM_CPU_KVCACHE_SPACE": integer(1, 4096),
    "VLLM_CPU_OMP_THREADS_BIND": pattern(r"auto|nobind|[0-9][0-9,|-]{0,199}", "auto, nobind or lists of cores"),
    "VLLM_LOGGING_LEVEL": choice("DEBUG", "INFO", "WARNING"),
    "VLLM_ATTENTION_BACKEND": pattern(r"[A-Z][A-Z0-9_]{0,39}", "a name such as FLASH_ATTN"),
    "VLLM_USE_TRITON_FLASH_ATTN": choice("0", "1"),
}

# `(Worker pid=14308) ERROR 11-20 11:47:59 [multiproc_executor.py:953] message`; other lines come from elsewhere.
_LINE = re.compile(
    r"^(?:\((?P<process>\w[\w -]*) pid=\d+\) )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"\d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] (?P<message>.*)"
)
_CONTEXT = re.compile(r"Using max model len (\d+)")

_DETAILS = (
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Dynamo bytecode transform time", "compiling the model"),
    ("Compiling a graph for", "compiling the model"),
    ("KV cache memory:", "making room for the key-value cache"),
    ("Graph capturing finished", "CUDA graphs captured"),
    ("init engine (profile", "starting the server"),
)

# What every failure of the engine ends in; the cause was said before.
_VAGUE = ("EngineDeadError", "EngineCore encountered an issue")
_GENERIC = ("Engine core initialization failed", "WorkerProc initialization failed")


class Vllm:
    """The adapter."""

    name = NAME
    tasks = tuple(Task)

    # While its workers start it swallows a SIGTERM and goes on; a second one ends it.
    stop_ladder = (StopStep(SIGTERM, 15.0), StopStep(SIGTERM, 15.0), StopStep(SIGKILL, 30.0))

    # Compiling and capturing graphs may say nothing for minutes.
    start_limits = StartLimits(stall_seconds=300.0, floor_seconds=300.0)

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """Importing, starting processes, profiling and capturing take longer than a small model's weights."""
        return {
            LoadStage.STARTING: 15.0,
            LoadStage.LOADING_WEIGHTS: 1.0 + size_bytes / 1e9,
            LoadStage.WARMING_UP: 10.0,
        }

    def find(self, host: Host) -> Found | NotUsable:
        """Look at what is installed beside the program; `--version` takes a quarter of a minute."""
        why = "there is no vllm on the search path; pip install vllm"
        for program in candidates(host, NAME, NAME):
            have = distributions(program)
            missing = [name for name in ("vllm", "torch") if name not in have]
            if missing:
                why = f"{program} lacks {', '.join(missing)}: pip install vllm"
                continue
            kinds = torch_kinds(have["torch"])
            gpus = kinds - {DeviceKind.CPU}  # a build for GPUs does not run without one
            return Found(backend=NAME, version=have["vllm"], program=(str(program), "serve"), kinds=gpus or kinds)
        return NotUsable(backend=NAME, why=why)

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """It runs safetensors on the devices it was built for."""
        if files.format is not Format.SAFETENSORS:
            return f"vLLM is used for safetensors, and {files.name} is {files.format}"
        if task is Task.GENERATE and not generates(files):
            return why_no_text(files)
        missing = missing_kinds(found, devices)
        return f"this build of vLLM does not run on {', '.join(sorted(missing))}" if missing else None

    def context_tokens(self, settings: Settings, _flags: Mapping[str, str], /) -> int | None:
        """Requests share a cache, which must hold the longest at least."""
        return settings.context_length

    def launch(self, plan: LaunchPlan) -> Launch:
        """One process, which starts its own."""
        refuse_settings(plan, takes=ENGINE_SETTINGS)
        refuse_remote_code(plan.files, allowed=plan.trust_remote_code)
        return openai.launch(
            plan,
            argv=tuple(_arguments(plan)),
            environment=_environment(plan),
            rules=VARIABLES,
            reader=VllmReader(),
            api_key=plan.api_key,
            judge_health=_judge_health,
            in_force=openai.models(plan.api_key),
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """The API server exits with 0 when its engine died, however it died."""
        cause = explain_end(end, causes, last_lines)
        if cause.reason is Reason.BACKEND_EXITED and end.exit_code == 0:
            return Cause(Reason.BACKEND_ENGINE_DEAD, f"Its engine ended. {cause.text}")
        return cause


class VllmReader(Reader):
    """Reads vLLM's log."""

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if bar := parse_bar(text):
            return tuple(bar_signals(bar))
        found = _LINE.match(text)
        message = found["message"] if found else text
        if any(words in message for words in _VAGUE):
            return (Cause(Reason.BACKEND_ENGINE_DEAD, message),)
        if any(words in message for words in _GENERIC):
            return (Cause(Reason.BACKEND_EXITED, message),)
        if found is None or found["level"] in ("ERROR", "CRITICAL"):
            cause = read_python_cause(message)
            return (cause,) if cause else tuple(_milestone(message))
        return tuple(_milestone(message))

    def in_force(self, body: bytes, /) -> Mapping[str, str]:
        """Read `/v1/models`."""
        return openai.context_length(body)


def _milestone(message: str) -> Iterator[Signal]:
    if "Starting to load model" in message:
        yield Stage(LoadStage.LOADING_WEIGHTS)
    elif "Loading weights took" in message or "Model loading took" in message:
        yield Stage(LoadStage.WARMING_UP)
    elif "Starting vLLM server on" in message or "Application startup complete" in message:
        yield Ready()
    elif found := _CONTEXT.search(message):
        yield InForce({"context_length": found[1]})
    yield from (Detail(words) for begin, words in _DETAILS if begin in message)


def _judge_health(status: int, body: bytes) -> Judgement:
    """Nothing answers before it serves, so 503 means that the engine is dead."""
    if status == 503:
        cause = Cause(Reason.BACKEND_ENGINE_DEAD, "Its engine has ended, its server is about to.")
        return Judgement(good=False, why="HTTP 503", cause=cause)
    return judge_status(status, body)


def _arguments(plan: LaunchPlan) -> Iterator[str]:
    settings = plan.settings
    yield from plan.found.program
    yield from (str(plan.files.root), "--served-model-name", plan.served_name)
    # Its access log would have a line for every health check.
    yield from ("--host", plan.host, "--port", str(plan.port), "--uvicorn-log-level", "warning")
    if plan.task is not Task.GENERATE:
        yield from ("--runner", "pooling")
    typed = {
        "--max-model-len": settings.context_length,
        "--dtype": settings.dtype,
        "--tensor-parallel-size": settings.tensor_parallel_size,
        "--max-num-seqs": settings.parallel_requests,
        "--gpu-memory-utilization": settings.device_memory_share or (CPU_MEMORY_SHARE if _on_cpu(plan) else None),
    }
    for option, value in typed.items():
        if value is not None:
            yield from (option, str(value))
    if plan.trust_remote_code and plan.files.remote_code:
        yield "--trust-remote-code"
    yield from flag_arguments(FLAGS, plan.flags, backend=NAME)


def _environment(plan: LaunchPlan) -> Mapping[str, str]:
    own = {**offline_environment(plan), "VLLM_API_KEY": plan.api_key, "VLLM_NO_USAGE_STATS": "1"}
    if _on_cpu(plan) and "VLLM_CPU_KVCACHE_SPACE" not in plan.environment:
        own["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_CACHE_GIB)
    return own


def _on_cpu(plan: LaunchPlan) -> bool:
    return plan.settings.device is DeviceKind.CPU or not plan.devices
