"""Plans and models to build launches from."""

from pathlib import Path
from typing import Any

from slipway_runner.backends.base import Format, Found, LaunchPlan, ModelFiles, Task
from slipway_runner.devices.device import Device, DeviceKind

GIB = 1 << 30

GPU = Device(
    uuid="GPU-aaaa",
    kind=DeviceKind.CUDA,
    index=0,
    name="NVIDIA H200",
    memory_total=140 * GIB,
    memory_used=0,
    memory_free=140 * GIB,
)
AMD = Device(
    uuid="GPU-0123",
    kind=DeviceKind.ROCM,
    index=0,
    name="AMD MI300X",
    memory_total=192 * GIB,
    memory_used=0,
    memory_free=192 * GIB,
)


def gguf(**changes: Any) -> ModelFiles:
    root = Path("/hub/models--o--m/snapshots/0123")
    values: dict[str, Any] = {
        "name": "o/m",
        "root": root,
        "format": Format.GGUF,
        "weights": (root / "m-Q4_K_M.gguf",),
        "size_bytes": 4 * GIB,
        "architecture": "llama",
    }
    return ModelFiles(**values | changes)


def safetensors(**changes: Any) -> ModelFiles:
    root = Path("/hub/models--o--m/snapshots/0123")
    values: dict[str, Any] = {
        "name": "o/m",
        "root": root,
        "format": Format.SAFETENSORS,
        "weights": tuple(root / f"model-{n:05}-of-00004.safetensors" for n in range(1, 5)),
        "size_bytes": 16 * GIB,
        "architecture": "LlamaForCausalLM",
    }
    return ModelFiles(**values | changes)


def found(backend: str, *kinds: DeviceKind, program: str = "/opt/x/bin/server", flags: Any = None) -> Found:
    return Found(
        backend=backend,
        version="1",
        program=(program,),
        kinds=frozenset(kinds or (DeviceKind.CPU,)),
        flags=flags,
    )


def plan(which: Found, files: ModelFiles, task: Task = Task.GENERATE, **changes: Any) -> LaunchPlan:
    values: dict[str, Any] = {
        "found": which,
        "files": files,
        "task": task,
        "served_name": "m",
        "port": 18000,
        "api_key": "secret",
        "scratch": Path("/var/lib/slipway/models/m"),
    }
    return LaunchPlan(**values | changes)


def option(argv: tuple[str, ...], name: str) -> str | None:
    """The value after an option, or None if it is not given."""
    return argv[argv.index(name) + 1] if name in argv else None
