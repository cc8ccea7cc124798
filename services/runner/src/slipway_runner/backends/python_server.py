"""What servers written in Python have in common: their environment, and the bars in their logs."""

from collections.abc import Iterator, Mapping

from slipway_runner.backends.base import LaunchPlan
from slipway_runner.backends.flags import Rules, choice, integer, pattern
from slipway_runner.progress.parse import Bar
from slipway_runner.progress.signals import Detail, Fraction, LoadStage, Shards, Signal, Source

ENVIRONMENT: Rules = {
    "OMP_NUM_THREADS": integer(1, 1024),
    "TOKENIZERS_PARALLELISM": choice("true", "false"),
    "CUDA_LAUNCH_BLOCKING": choice("0", "1"),
    "NCCL_DEBUG": choice("VERSION", "WARN", "INFO", "TRACE"),
    "NCCL_P2P_DISABLE": choice("0", "1"),
    "NCCL_P2P_LEVEL": choice("LOC", "NVL", "PIX", "PXB", "PHB", "SYS"),
    "NCCL_IB_DISABLE": choice("0", "1"),
    "NCCL_SHM_DISABLE": choice("0", "1"),
    "PYTORCH_CUDA_ALLOC_CONF": pattern(r"[a-z_]+:[A-Za-z0-9.]+(,[a-z_]+:[A-Za-z0-9.]+)*", "name:value,…"),
}
"""Of torch and the libraries below it."""

ENGINE_SETTINGS = (
    "context_length",
    "device",
    "dtype",
    "tensor_parallel_size",
    "parallel_requests",
    "device_memory_share",
)
"""What vLLM and SGLang can be told."""


def offline_environment(plan: LaunchPlan) -> Mapping[str, str]:
    """Return what keeps a server off the network and out of other people's files, and its lines coming at once."""
    return {
        "HF_HOME": str(plan.scratch / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }


def bar_signals(bar: Bar) -> Iterator[Signal]:
    """Read a bar that counts files of weights or CUDA graphs; any other says what goes on.

    Labels: transformers 4 (`Loading checkpoint shards`), vLLM and SGLang (`Loading safetensors checkpoint shards`,
    `Loading pt checkpoint shards`, `Multi-thread loading shards`; `Capturing CUDA graphs (…)`, `Capturing batches`).
    """
    label = bar.label.lower()
    if "shards" in label:
        yield Shards(bar.done, bar.total, source=Source.LOG)
    elif "capturing" in label:
        yield Fraction(LoadStage.WARMING_UP, bar.done / bar.total, Source.LOG)
        yield Detail(f"capturing CUDA graphs: {bar.done} of {bar.total}")
    elif "loading" in label:
        # Tensors or files, this one does not say (Run:ai streamer, InstantTensor, fastsafetensors).
        yield Fraction(LoadStage.LOADING_WEIGHTS, bar.done / bar.total, Source.LOG)
