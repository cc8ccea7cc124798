"""Which backend runs a model, and why the others do not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slipway_service.fault import Fault, Reason

from slipway_runner.backends.base import Backend, Format, Found, Host, ModelFiles, NotUsable, Task
from slipway_runner.backends.command import INFINITY
from slipway_runner.backends.llama_server import LlamaServer
from slipway_runner.backends.settings import refuse_remote_code
from slipway_runner.backends.sglang import Sglang
from slipway_runner.backends.transformers_serve import TransformersServe
from slipway_runner.backends.vllm import Vllm
from slipway_runner.devices.device import Device

SHIPPED: tuple[Backend, ...] = (LlamaServer(), Vllm(), Sglang(), TransformersServe(), INFINITY)
"""The backends that come with the runner; the configuration may add `CommandBackend`s."""

# Best first. On a GPU, vLLM and SGLang batch what transformers serve computes one by one; on a CPU they gain nothing
# and take ten times as long to start.
_ON_GPU = ("llama-server", "vllm", "sglang", "infinity", "transformers")
_ON_CPU = ("llama-server", "infinity", "transformers", "vllm", "sglang")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backend for a model, and why each other one is not taken, by name."""

    backend: Backend
    found: Found
    others: Mapping[str, str]


def find_all(backends: Iterable[Backend], host: Host) -> Mapping[str, Found | NotUsable]:
    """Look for every backend (blocking, for seconds: call it in a worker thread)."""
    return {backend.name: backend.find(host) for backend in backends}


def choose(
    backends: Iterable[Backend],
    found: Mapping[str, Found | NotUsable],
    files: ModelFiles,
    task: Task,
    devices: tuple[Device, ...],
    *,
    wanted: str = "",
    trust_remote_code: bool = False,
) -> Choice:
    """Choose the backend that runs a model.

    Args:
        backends: those there are; ones that this module does not know come last, in their order.
        found: what `find_all` says of them.
        files: of the model.
        task: what it is asked for.
        devices: what it may use; empty is the CPU.
        wanted: the one that the caller names; it is taken or refused.
        trust_remote_code: the operator allows code from repositories.

    Raises:
        Fault: BACKEND_UNSUITABLE if none can run the model, BACKEND_UNAVAILABLE if one could but is not usable here,
            REMOTE_CODE_REQUIRED. The facts say why of each.
    """
    if files.format is not Format.GGUF:
        refuse_remote_code(files, allowed=trust_remote_code)
    order = _ON_GPU if devices else _ON_CPU
    ranked = sorted(backends, key=lambda one: order.index(one.name) if one.name in order else len(order))
    why = {one.name: _why_not(one, found[one.name], files, task, devices) for one in ranked}
    chosen = next((one for one in ranked if why[one.name] is None and wanted in ("", one.name)), None)
    if chosen is None:
        raise _refusal(found, files, task, wanted, {name: text or "not asked for" for name, text in why.items()})
    others = {name: text or f"{chosen.name} comes first" for name, text in why.items() if name != chosen.name}
    if wanted:
        others = {name: text if why[name] else "not asked for" for name, text in others.items()}
    use = found[chosen.name]
    assert isinstance(use, Found)
    return Choice(backend=chosen, found=use, others=others)


def _why_not(
    backend: Backend, found: Found | NotUsable, files: ModelFiles, task: Task, devices: tuple[Device, ...]
) -> str | None:
    if isinstance(found, NotUsable):
        return found.why
    return backend.suits(found, files, task, devices)


def _refusal(
    found: Mapping[str, Found | NotUsable], files: ModelFiles, task: Task, wanted: str, why: Mapping[str, str]
) -> Fault:
    if wanted and wanted not in why:
        known = ", ".join(why)
        return Fault(Reason.BACKEND_UNAVAILABLE, f"There is no backend {wanted}; there are {known}.", facts=why)
    if wanted:
        missing = isinstance(found[wanted], NotUsable)
        reason = Reason.BACKEND_UNAVAILABLE if missing else Reason.BACKEND_UNSUITABLE
        return Fault(reason, f"{wanted} cannot run {files.name}: {why[wanted]}.", facts=why)
    told = "; ".join(f"{name}: {text}" for name, text in why.items())
    text = f"No backend here can {task} with {files.name} ({files.format}). {told}."
    missing = any(isinstance(found[name], NotUsable) for name in _candidates(files.format, task))
    return Fault(Reason.BACKEND_UNAVAILABLE if missing else Reason.BACKEND_UNSUITABLE, text, facts=why)


def _candidates(format_: Format, task: Task) -> tuple[str, ...]:
    """Return the shipped backends that could run such a model if they were usable."""
    if format_ is Format.GGUF:
        return ("llama-server",)
    if format_ is not Format.SAFETENSORS:
        return ()
    return ("vllm", "sglang", "transformers") if task is Task.GENERATE else ("vllm", "infinity")
