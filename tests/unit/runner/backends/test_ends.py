"""Why a process ended."""

import pytest
from slipway_runner.backends.base import End
from slipway_runner.backends.ends import explain_end
from slipway_runner.progress.signals import Cause
from slipway_service.fault import Reason

MISSING = Cause(Reason.MODEL_FILE_MISSING, "no such file")
MEMORY = Cause(Reason.OUT_OF_MEMORY, "no memory")
VAGUE = Cause(Reason.BACKEND_EXITED, "RuntimeError: something failed")
DEAD = Cause(Reason.BACKEND_ENGINE_DEAD, "gone")


@pytest.mark.parametrize(
    ("end", "causes", "lines", "reason", "words"),
    [
        (End(exit_code=1), (MISSING, MEMORY), ("bye",), Reason.MODEL_FILE_MISSING, "no such file"),
        (End(exit_code=1), (VAGUE, DEAD, MEMORY), (), Reason.OUT_OF_MEMORY, "no memory"),
        (
            End(exit_code=1),
            (DEAD, VAGUE),
            (),
            Reason.BACKEND_ENGINE_DEAD,
            "exited with code 1; first of all it said: gone",
        ),
        (End(signal=9, oom_killed=True), (MISSING,), (), Reason.OUT_OF_MEMORY, "The kernel killed it"),
        (End(signal=9), (), (), Reason.BACKEND_EXITED, "killed by SIGKILL"),
        (End(signal=11), (), ("one", "two", " "), Reason.BACKEND_EXITED, "ended by SIGSEGV; its last line: two"),
        (End(signal=99), (), (), Reason.BACKEND_EXITED, "ended by signal 99; it said nothing"),
        (End(exit_code=0), (), ("bye",), Reason.BACKEND_EXITED, "It exited with code 0; its last line: bye"),
        (End(), (), (), Reason.BACKEND_EXITED, "It ended"),
    ],
)
def test_why(end: End, causes: tuple[Cause, ...], lines: tuple[str, ...], reason: Reason, words: str) -> None:
    cause = explain_end(end, causes, lines)
    assert cause.reason is reason
    assert words in cause.text
