"""The typed settings, checked against what a backend takes; and whether a model's own code may run."""

from collections.abc import Iterator
from dataclasses import fields

from slipway_service.fault import Fault, FieldViolation, Reason

from slipway_runner.backends.base import LaunchPlan, ModelFiles, Settings, shown_name

DTYPES = ("float32", "float16", "bfloat16")


def refuse_settings(plan: LaunchPlan, *, takes: tuple[str, ...]) -> None:
    """Raise Fault: INVALID_FIELDS for settings that are out of bounds, or that the backend does not have."""
    wrong = [
        FieldViolation(f"spec.settings.{name}", why)
        for name, why in (*_untaken(plan, takes), *_out_of_bounds(plan.settings))
    ]
    if wrong:
        told = "; ".join(f"{entry.field} {entry.description}" for entry in wrong)
        raise Fault(Reason.INVALID_FIELDS, f"Correct or remove: {told}.", fields=tuple(wrong))


def refuse_remote_code(files: ModelFiles, *, allowed: bool) -> None:
    """Raise Fault: REMOTE_CODE_REQUIRED if the model brings code and the operator allows none."""
    if files.remote_code and not allowed:
        raise Fault(
            Reason.REMOTE_CODE_REQUIRED,
            f"{files.name} runs Python code from its repository, which this runner does not allow.",
        )


def _untaken(plan: LaunchPlan, takes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for field in fields(Settings):
        if getattr(plan.settings, field.name) is not None and field.name not in takes:
            yield shown_name(field), f"is no setting of {plan.found.backend}"


def _out_of_bounds(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("context_length", "tensor_parallel_size", "parallel_requests"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            yield name, "must be at least 1"
    if settings.gpu_layers is not None and settings.gpu_layers < -1:
        yield "gpu_layers", "must be -1 (all), 0 (none) or a number of layers"
    if settings.dtype is not None and settings.dtype not in DTYPES:
        yield "dtype", f"must be one of {', '.join(DTYPES)}"
    share = settings.device_memory_share
    if share is not None and not 0 < share <= 1:
        yield "gpu_memory_utilization", "must be greater than 0 and at most 1"
