"""llama.cpp's `llama-server`: GGUF models for chat, embeddings and reranking, on the CPU or on GPUs.

Facts are from llama.cpp 0c1e57098 (tools/server, common/arg.cpp), run and read. Options come and go between builds
(`--no-mmap` is gone), so what a build has is asked from its `--help`.
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
    HttpQuestion,
    Launch,
    LaunchPlan,
    ModelFiles,
    NotUsable,
    Settings,
    StartLimits,
    Stdin,
    StopStep,
    Task,
)
from slipway_runner.backends.ends import explain_end
from slipway_runner.backends.environment import build_environment
from slipway_runner.backends.flags import Rules, choice, flag_arguments, integer, number, switch
from slipway_runner.backends.llama_server_log import LlamaReader
from slipway_runner.backends.programs import candidates
from slipway_runner.backends.settings import refuse_settings
from slipway_runner.backends.tasks import generates, why_no_text
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.progress.signals import Cause, LoadStage

NAME = "llama-server"

ASK_SECONDS = 20.0
"""For `--version`, `--help` and `--list-devices`; a CUDA build needs seconds to look for devices."""

ALL_LAYERS = 999
"""More layers than any model has; the word `all` is newer than many builds."""

# As a child of llama-server's own router it reports how far it is, and reads from standard input when to leave
# (server-models.cpp). The value is the router's port, which it does not use.
_CHILD = {"LLAMA_SERVER_ROUTER_PORT": "1"}
_FAREWELL = b"cmd_router_to_child:exit\n"

# Ours where the build has them: no web page; nothing from the network; a stop that does not wait for the next ping of
# a stream (it waits one interval: 30 s by default).
_WANTED = (("--no-webui",), ("--offline",), ("--sse-ping-interval", "1"))

_CACHE_TYPES = choice("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

FLAGS: Rules = {
    "threads": integer(1, 1024),
    "threads-batch": integer(1, 1024),
    "threads-http": integer(1, 1024),
    "batch-size": integer(1, 1 << 20),
    "ubatch-size": integer(1, 1 << 20),
    "flash-attn": choice("on", "off", "auto"),
    "cache-type-k": _CACHE_TYPES,
    "cache-type-v": _CACHE_TYPES,
    "cache-ram": integer(-1, 1 << 24),
    "cache-reuse": integer(0, 1 << 20),
    "kv-unified": switch,
    "no-kv-offload": switch,
    "cont-batching": switch,
    "no-cont-batching": switch,
    "context-shift": switch,
    "swa-full": switch,
    "split-mode": choice("none", "layer", "row", "tensor"),
    "main-gpu": integer(0, 64),
    "n-cpu-moe": integer(0, ALL_LAYERS),
    "cpu-moe": switch,
    "fit": choice("on", "off"),
    "load-mode": choice("auto", "none", "mmap", "mlock", "dio"),
    "mlock": switch,
    "no-mmap": switch,
    "numa": choice("distribute", "isolate", "numactl"),
    "prio": integer(-1, 2),
    "poll": integer(0, 100),
    "no-warmup": switch,
    "no-repack": switch,
    "jinja": switch,
    "no-jinja": switch,
    "reasoning-format": choice("none", "auto", "deepseek", "deepseek-legacy"),
    "reasoning-budget": integer(-1, 1 << 20),
    "pooling": choice("none", "mean", "cls", "last", "rank"),
    "rope-scaling": choice("none", "linear", "yarn"),
    "rope-scale": number(0.001, 1000),
    "rope-freq-base": number(0, 1e9),
    "rope-freq-scale": number(0.000001, 1000),
    "yarn-orig-ctx": integer(0, 1 << 24),
    "slot-prompt-similarity": number(0, 1),
    "no-slots": switch,
    "n-predict": integer(-1, 1 << 20),
    "seed": integer(-1, (1 << 32) - 1),
    "timeout": integer(1, 24 * 3600),
    "verbosity": integer(0, 5),
}

ENVIRONMENT: Rules = {
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY": choice("0", "1"),
    "GGML_CUDA_FORCE_CUBLAS": choice("0", "1"),
    "GGML_CUDA_FORCE_MMQ": choice("0", "1"),
    "CUDA_LAUNCH_BLOCKING": choice("0", "1"),
    "OMP_NUM_THREADS": integer(1, 1024),
}

_DEVICE = re.compile(r"^ +(CUDA|ROCm|HIP|Vulkan)\d+:", re.MULTILINE)
_KINDS = {
    "CUDA": DeviceKind.CUDA,
    "ROCm": DeviceKind.ROCM,
    "HIP": DeviceKind.ROCM,
    "Vulkan": DeviceKind.VULKAN,
}


class LlamaServer:
    """The adapter."""

    name = NAME
    tasks = tuple(Task)

    # Told to leave it is gone in some ms, in a second if it streams. SIGTERM alone would leave it waiting for the word
    # on its standard input; a second SIGTERM ends it at once, and so it does a request whose client stays.
    stop_ladder = (StopStep(SIGTERM, 3.0), StopStep(SIGTERM, 5.0), StopStep(SIGKILL, 20.0))

    start_limits = StartLimits(stall_seconds=120.0, floor_seconds=120.0)

    def usual_seconds(self, size_bytes: int) -> Mapping[LoadStage, float]:
        """Mapped from a local disk: most of the reading happens while it warms up."""
        return {
            LoadStage.STARTING: 0.2,
            LoadStage.LOADING_WEIGHTS: 0.3 + size_bytes / 2e9,
            LoadStage.WARMING_UP: 0.3 + size_bytes / 1e9,
        }

    def find(self, host: Host) -> Found | NotUsable:
        """Ask each candidate for its version, options and devices; the first that answers is taken."""
        why = "there is no llama-server on the search path; `make backends` builds one, or configure its path"
        for program in candidates(host, NAME, NAME):
            version = host.run((str(program), "--version"), seconds=ASK_SECONDS, env={})
            if version.exit_code != 0:
                why = f"{program} --version failed: {(version.stderr or version.stdout).strip()[-200:]}"
                continue
            options = host.run((str(program), "--help"), seconds=ASK_SECONDS, env={})
            devices = host.run((str(program), "--list-devices"), seconds=ASK_SECONDS, env={})
            return Found(
                backend=NAME,
                version=_version(version.stdout + version.stderr),
                program=(str(program),),
                kinds=frozenset({DeviceKind.CPU, *(_KINDS[name] for name in _DEVICE.findall(devices.stdout))}),
                flags=frozenset(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", options.stdout + options.stderr)),
            )
        return NotUsable(backend=NAME, why=why)

    def suits(self, found: Found, files: ModelFiles, task: Task, devices: tuple[Device, ...]) -> str | None:
        """It runs GGUF; encoders have no next token to generate."""
        if files.format is not Format.GGUF:
            return f"llama-server runs GGUF, and {files.name} is {files.format}"
        if not files.weights:
            return f"{files.name} has no GGUF with weights"
        if task is Task.GENERATE and not generates(files):
            return why_no_text(files)
        missing = {device.kind for device in devices} - found.kinds
        return f"this build of llama-server has no {', '.join(sorted(missing))}" if missing else None

    def context_tokens(self, settings: Settings, flags: Mapping[str, str], /) -> int | None:
        """What `--ctx-size` says."""
        return _context_tokens(settings, flags)

    def launch(self, plan: LaunchPlan) -> Launch:
        """One process, its options by their long names, the key by environment."""
        refuse_settings(plan, takes=("context_length", "gpu_layers", "device", "parallel_requests"))
        paths = openai.PATHS[plan.task]
        return Launch(
            argv=tuple(_arguments(plan)),
            env=build_environment(plan, {"LLAMA_API_KEY": plan.api_key, **_CHILD}, ENVIRONMENT),
            stdin=Stdin.FIFO,
            host=plan.host,
            port=plan.port,
            model_path=plan.files.weights[0],
            model_field=plan.served_name,
            api_key=plan.api_key,
            liveness=openai.liveness("/health"),
            question=openai.smallest_question(plan.task, plan.served_name, plan.api_key, paths),
            in_force=HttpQuestion(
                method="GET", path="/props", headers=openai.bearer(plan.api_key), timeout=openai.LIVENESS_SECONDS
            ),
            reader=LlamaReader(plan.files),
            paths=paths,
            farewell=_FAREWELL,
        )

    def explain(self, end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
        """It says what is wrong before it exits with 1; killed for want of memory it says nothing."""
        return explain_end(end, causes, last_lines)


def _arguments(plan: LaunchPlan) -> Iterator[str]:
    known = plan.found.flags or frozenset()
    yield from plan.found.program
    yield from ("--model", str(plan.files.weights[0]), "--alias", plan.served_name)
    yield from ("--host", plan.host, "--port", str(plan.port), "--metrics")
    for option in _WANTED:
        if option[0] in known:
            yield from option
    if plan.files.mmproj is not None:
        yield from ("--mmproj", str(plan.files.mmproj))
    if plan.task is not Task.GENERATE:
        yield "--embeddings" if plan.task is Task.EMBED else "--reranking"
    yield from _settings(plan, known)
    yield from flag_arguments(FLAGS, plan.flags, backend=NAME, known=plan.found.flags)


def _context_tokens(settings: Settings, flags: Mapping[str, str]) -> int | None:
    # Slots share the context unless it is unified, which is the default only for the automatic number of slots.
    if settings.context_length is None or "kv-unified" in flags:
        return settings.context_length
    return settings.context_length * (settings.parallel_requests or 1)


def _settings(plan: LaunchPlan, known: frozenset[str]) -> Iterator[str]:
    settings = plan.settings
    if (tokens := _context_tokens(settings, plan.flags)) is not None:
        yield from ("--ctx-size", str(tokens))
    if settings.parallel_requests is not None:
        yield from ("--parallel", str(settings.parallel_requests))
    on_cpu = settings.device is DeviceKind.CPU or not plan.devices
    if on_cpu and "--device" in known:
        yield from ("--device", "none")
    elif settings.gpu_layers is not None and not on_cpu:
        yield from ("--gpu-layers", str(ALL_LAYERS if settings.gpu_layers < 0 else settings.gpu_layers))


def _version(text: str) -> str:
    found = re.search(r"version: (.+)", text)
    return found[1].strip() if found else "unknown"
