"""The environment of a backend, built from nothing."""

from collections.abc import Mapping
from pathlib import Path

from slipway_runner.backends.base import LaunchPlan
from slipway_runner.backends.flags import Rules, checked_environment
from slipway_runner.devices.device import DeviceKind

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""After the backend's own directory: compilers and tools, for vLLM and Triton compile kernels when they start."""


def build_environment(plan: LaunchPlan, own: Mapping[str, str], rules: Rules) -> Mapping[str, str]:
    """Return all variables of the process; later ones win: the system's, the caller's, the operator's, the adapter's.

    Args:
        plan: gives the caller's and the operator's variables, the devices, and the directory to call home.
        own: the adapter's variables, which nobody may change.
        rules: what the caller may set.

    Raises:
        Fault: ENVIRONMENT_NOT_ALLOWED.
    """
    return {
        "PATH": f"{Path(plan.found.program[0]).parent}:{SYSTEM_PATH}",
        "HOME": str(plan.scratch),
        "LANG": "C.UTF-8",
        **checked_environment(rules, plan.environment, backend=plan.found.backend),
        **plan.operator_environment,
        **_visible_devices(plan),
        **own,
    }


def _visible_devices(plan: LaunchPlan) -> Mapping[str, str]:
    """Show a backend only the devices of the plan, by UUID: indices change when one fails, and between tools."""
    cuda = ",".join(device.uuid for device in plan.devices if device.kind is DeviceKind.CUDA)
    rocm = ",".join(device.uuid for device in plan.devices if device.kind is DeviceKind.ROCM)
    # An empty CUDA_VISIBLE_DEVICES hides all; ROCr takes an empty one for "not set", but HIP stops at a wrong index.
    return {
        "CUDA_VISIBLE_DEVICES": cuda,
        **({"ROCR_VISIBLE_DEVICES": rocm} if rocm else {"HIP_VISIBLE_DEVICES": "-1"}),
    }
