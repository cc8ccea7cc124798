"""SGLang: safetensors models on GPUs, for text and embeddings.

Constructed from the source of 0.5.23 (srt/server_args.py, entrypoints/http_server.py, model_executor); it needs a GPU
and has not been run by us. It takes a key only on its command line and prints that to its log, so it gets none: its
port is on loopback.
"""

import re
from collections.abc import Iterator, Mapping
from signal import SIGKILL, SIGTERM

from slipway_runner.backends import openai
from slipway_runner.backends.base import (
    End,
    Format,
    Found,
    Host,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Reader,
    Settings,
    StartLimits,
    StopStep,
    Task,
)
from slipway_runner.backends.ends import explain_end, read_python_cause
from slipway_runner.backends.flags import Rules, choice, flag_arguments, integer, pattern, switch
from slipway_runner.backends.programs import candidates, distributions, missing_kinds, torch_kinds
from slipway_runner.backends.python_server import ENGINE_SETTINGS, ENVIRONMENT, bar_signals, offline_environment
from slipway_runner.backends.settings import refuse_remote_code, refuse_settings
from slipway_runner.backends.tasks import generates, why_no_text
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.parse import parse_bar
from slipway_runner.progress.signals import Cause, Detail, LoadStage, Ready, Signal, Stage

NAME = "sglang"

FLAGS: Rules = {
    "chunked-prefill-size": integer(-1, 1 << 24),
    "max-total-tokens": integer(1, 1 << 30),
    "schedule-policy": choice("lpm", "random", "fcfs", "dfs-weight", "lof"),
    "kv-cache-dtype": choice("auto", "fp8_e5m2", "fp8_e4m3"),
    "quantization": pattern(r"[a-z0-9][a-z0-9_-]{0,39}", "a name such as awq, gptq, fp8"),
    "attention-backend": pattern(r"[a-z0-9][a-z0-9_]{0,39}", "a name such as flashinfer"),
    "sampling-backend": choice("flashinfer", "pytorch"),
    "disable-radix-cache": switch,
    "disable-cuda-graph": switch,
    "enable-torch-compile": switch,
    "dp-size": integer(1, 64),
    "ep-size": integer(1, 64),
    "tool-call-parser": pattern(r"[a-z0-9][a-z0-9_]{0,39}", "a name such as qwen25"),
    "reasoning-parser": pattern(r"[a-z0-9][a-z0-9_-]{0,39}", "a name such as qwen3"),
    "random-seed": integer(0, (1 << 32) - 1),
}

# `[2026-11-20 11:47:59 TP0] message`, with milliseconds if so configured.
_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[^\]]*\] (?P<message>.*)")

_READY = "The server is fired up and ready to roll"


class Sglang:
    """The adapter."""

    name = NAME
    tasks = (Task.GENERATE, Task.EMBED)

    # Its draining of requests has no limit; a child that fails sends SIGQUIT, upon which it kills its own tree.
    stop_ladder = (StopStep(SIGTERM, 20.0), StopStep(SIGKILL, 30.0))

    start_limits = StartLimits(stall_seconds=300.0, floor_seconds=300.0)

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """As vLLM's, which it resembles."""
        return {
            LoadStage.STARTING: 15.0,
            LoadStage.LOADING_WEIGHTS: 1.0 + size_bytes / 1e9,
            LoadStage.WARMING_UP: 20.0,
        }

    def find(self, host: Host) -> Found | NotUsable:
        """Look for the `sglang` command; the server is run by the Python beside it."""
        why = "there is no sglang on the search path; pip install sglang"
        for program in candidates(host, NAME, NAME):
            have = distributions(program)
            if "sglang" in have and "torch" in have:
                python = str(program.with_name("python"))
                kinds = torch_kinds(have["torch"]) - {DeviceKind.CPU}
                server = (python, "-m", "sglang.launch_server")
                return Found(backend=NAME, version=have["sglang"], program=server, kinds=kinds)
            why = f"{program} lacks sglang or torch: pip install sglang"
        return NotUsable(backend=NAME, why=why)

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """It runs safetensors on GPUs."""
        if files.format is not Format.SAFETENSORS:
            return f"SGLang is used for safetensors, and {files.name} is {files.format}"
        if task not in self.tasks:
            return "SGLang is not used for reranking"
        if task is Task.GENERATE and not generates(files):
            return why_no_text(files)
        missing = missing_kinds(found, devices)
        return f"SGLang does not run on {', '.join(sorted(missing))} here" if missing else None

    def context_tokens(self, settings: Settings, _flags: Mapping[str, str], /) -> int | None:
        """Requests share a cache, which must hold the longest at least."""
        return settings.context_length

    def launch(self, plan: LaunchPlan) -> Launch:
        """One process, which starts its own."""
        refuse_settings(plan, takes=ENGINE_SETTINGS)
        refuse_remote_code(plan.files, allowed=plan.trust_remote_code)
        own = {
            **offline_environment(plan),
            # Otherwise each /health computes a token, and takes a second to.
            "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
            # The runner has drained it before it is told to stop.
            "SGL_FORCE_SHUTDOWN": "true",
        }
        return openai.launch(
            plan,
            argv=tuple(_arguments(plan)),
            environment=own,
            rules=ENVIRONMENT,
            reader=SglangReader(),
            in_force=openai.models(None),
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """A failed child makes it kill itself; why is in the log."""
        return explain_end(end, causes, last_lines)


class SglangReader(Reader):
    """Reads SGLang's log."""

    def line(self, text: str, /) -> tuple[Signal, ...]:
        """See `Reader.line`."""
        if bar := parse_bar(text):
            return tuple(bar_signals(bar))
        found = _LINE.match(text)
        message = found["message"] if found else text
        cause = read_python_cause(message)
        return (cause,) if cause else tuple(_milestone(message))

    def in_force(self, body: bytes, /) -> Mapping[str, str]:
        """Read `/v1/models`."""
        return openai.context_length(body)


def _milestone(message: str) -> Iterator[Signal]:
    if message.startswith("Load weight begin"):
        yield Stage(LoadStage.LOADING_WEIGHTS)
    elif message.startswith("Load weight end"):
        yield Stage(LoadStage.WARMING_UP)
    elif message.startswith("Memory pool end"):
        yield Detail("key-value cache is there")
    elif re.match(r"Capture .* begin", message):
        yield Detail("capturing CUDA graphs")
    elif _READY in message:
        yield Ready()


def _arguments(plan: LaunchPlan) -> Iterator[str]:
    settings = plan.settings
    yield from plan.found.program
    yield from ("--model-path", str(plan.files.root), "--served-model-name", plan.served_name)
    yield from ("--host", plan.host, "--port", str(plan.port), "--log-level-http", "warning", "--enable-metrics")
    if plan.task is Task.EMBED:
        yield "--is-embedding"
    typed = {
        "--context-length": settings.context_length,
        "--dtype": settings.dtype,
        "--tp-size": settings.tensor_parallel_size,
        "--max-running-requests": settings.parallel_requests,
        "--mem-fraction-static": settings.device_memory_share,
    }
    for option, value in typed.items():
        if value is not None:
            yield from (option, str(value))
    if plan.trust_remote_code and plan.files.remote_code:
        yield "--trust-remote-code"
    yield from flag_arguments(FLAGS, plan.flags, backend=NAME)
