"""Why a process ended, from what its lines said and from how it ended."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from signal import SIGKILL, Signals

from slipway_service.fault import Reason

from slipway_runner.backends.base import End
from slipway_runner.progress.signals import Cause

TEXT_MAX = 500
"""Characters of a line that are quoted."""

# That something ended or broke off says less than why; these give way to any other cause.
_VAGUE = frozenset({Reason.BACKEND_EXITED, Reason.BACKEND_ENGINE_DEAD, Reason.INTERNAL})


@dataclass(frozen=True, slots=True)
class Sign:
    """A line that matches `pattern` (anywhere in it) means `reason`."""

    pattern: re.Pattern[str]
    reason: Reason


def signs(*pairs: tuple[str, Reason]) -> tuple[Sign, ...]:
    """Return signs for expressions, the first that matches being the one that counts."""
    return tuple(Sign(re.compile(expression), reason) for expression, reason in pairs)


def read_cause(known: Iterable[Sign], line: str) -> Cause | None:
    """Return what a line says about a failure, or None."""
    for sign in known:
        if sign.pattern.search(line):
            return Cause(sign.reason, line.strip()[:TEXT_MAX])
    return None


def explain_end(end: End, causes: tuple[Cause, ...], last_lines: tuple[str, ...]) -> Cause:
    """Return the first cause that says why; where none does, what the kernel or the last line has to say."""
    if end.oom_killed:
        return Cause(Reason.OUT_OF_MEMORY, "The kernel killed it: its memory limit, or the host's memory, was reached.")
    telling = next((cause for cause in causes if cause.reason not in _VAGUE), None)
    if telling:
        return telling
    if causes:
        return Cause(causes[0].reason, f"It {how(end)}; first of all it said: {causes[0].text}")
    last = next((line.strip() for line in reversed(last_lines) if line.strip()), "")
    said = f"; its last line: {last[:TEXT_MAX]}" if last else "; it said nothing"
    return Cause(Reason.BACKEND_EXITED, f"It {how(end)}{said}")


def how(end: End) -> str:
    """Return in words how a process ended."""
    if end.signal == SIGKILL:
        return "was killed by SIGKILL (by somebody else, or by the kernel for want of memory)"
    if end.signal is not None:
        return f"was ended by {_name(end.signal)}"
    return f"exited with code {end.exit_code}" if end.exit_code is not None else "ended"


def _name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


# Only where a program says that something failed: the last line of an exception, an error of an argument parser (typer
# draws a box around it), uvicorn's errors. The same words stand in settings, advice and requests echoed to the log.
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)(?::|$)")
_COMPLAINT = re.compile(r"\b[Ee]rror: |^ERROR: |^[│|] ")


def read_python_cause(message: str) -> Cause | None:
    """Return what a line of a Python program's output says about a failure, or None.

    An exception that is none of `PYTHON_SIGNS` is a vague cause.
    """
    exception = _EXCEPTION.search(message)
    if not exception and not _COMPLAINT.search(message):
        return None
    cause = read_cause(PYTHON_SIGNS, message)
    return cause or (Cause(Reason.BACKEND_EXITED, message.strip()[:TEXT_MAX]) if exception else None)


PYTHON_SIGNS = signs(
    (r"SafetensorError|deserializing header|invalid load key|UnpicklingError", Reason.MODEL_FILE_INVALID),
    (r"JSONDecodeError|not a valid JSON file|Unrecognized model in", Reason.MODEL_FILE_INVALID),
    (r"OutOfMemoryError|out of memory|can't allocate memory|^MemoryError|Cannot allocate memory", Reason.OUT_OF_MEMORY),
    (r"less than desired (?:CPU|GPU) memory utilization|No available memory for the cache", Reason.OUT_OF_MEMORY),
    (r"Not enough memory\b", Reason.OUT_OF_MEMORY),
    (r"\[Errno 98\]|[Aa]ddress already in use", Reason.PORT_IN_USE),
    (r"contains custom code|trust_remote_code=True|--trust-remote-code", Reason.REMOTE_CODE_REQUIRED),
    (r"LocalEntryNotFoundError|We couldn't connect to 'https?://", Reason.MODEL_FILE_MISSING),
    (r"does not appear to have a file named|FileNotFoundError|Repo id must be in", Reason.MODEL_FILE_MISSING),
    (r"No such option|unrecognized arguments|error: argument |Invalid value for", Reason.BACKEND_FLAG_REJECTED),
    (r"No CUDA GPUs are available|no CUDA-capable device|invalid device ordinal", Reason.DEVICE_NOT_FOUND),
    (r"Found no NVIDIA driver|No HIP GPUs|Torch not compiled with CUDA", Reason.DEVICE_NOT_FOUND),
    (r"Model architectures .* (?:are|is) not supported", Reason.BACKEND_UNSUITABLE),
    (r"does not recognize this architecture", Reason.BACKEND_UNSUITABLE),
)
"""What the exceptions of torch, transformers, safetensors, uvicorn and argument parsers look like in a line."""
