"""What the exit code says: one for each family of errors, so that scripts can tell "not there" from "try later"."""

from dataclasses import dataclass

from slipway_client.errors import (
    AccessDenied,
    BackendFailed,
    Conflict,
    Damaged,
    DeadlineExceeded,
    NoRoom,
    NotFound,
    NotServed,
    RequestInvalid,
    ServiceFailure,
    SlipwayError,
    TransferFailed,
    Unavailable,
)

WORKED = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
PIPE_CLOSED = 141
"""128 + SIGPIPE, as shells have it."""


@dataclass(frozen=True, slots=True)
class ExitCode:
    """A row of the table: the code, a word for the help, and the meaning for the documentation."""

    code: int
    word: str
    meaning: str
    family: type[SlipwayError] | None = None


TABLE: tuple[ExitCode, ...] = (
    ExitCode(WORKED, "worked", "It worked."),
    ExitCode(FAILED, "defect", "A defect of a service or of this command, or an unknown reason.", ServiceFailure),
    ExitCode(USAGE, "usage", "The command line, the configuration or a value in the request is wrong.", RequestInvalid),
    ExitCode(3, "not found", "No such repository, revision, variant, download, snapshot, model or device.", NotFound),
    ExitCode(4, "not allowed", "A gated repository, a token, or a path outside the allowed roots.", AccessDenied),
    ExitCode(5, "conflict", "Something is in another state than this needs, or was cancelled meanwhile.", Conflict),
    ExitCode(6, "no room", "Disk, device memory or main memory does not suffice.", NoRoom),
    ExitCode(7, "Hub", "The Hub cannot be reached, or does not give what it should.", TransferFailed),
    ExitCode(8, "backend", "No backend can run the model, or the one that ran it failed.", BackendFailed),
    ExitCode(9, "unavailable", "The registry or the runner does not answer now.", Unavailable),
    ExitCode(10, "deadline", "No answer came in time.", DeadlineExceeded),
    ExitCode(
        11,
        "not served",
        "The service does not know the call: it is older than this command, or another one.",
        NotServed,
    ),
    ExitCode(12, "damaged", "Files do not have the hash that they should have.", Damaged),
    ExitCode(INTERRUPTED, "Ctrl-C", "Interrupted; downloads and loads that it waited for go on."),
    ExitCode(PIPE_CLOSED, "pipe closed", "Nobody read the output any more."),
)

_BY_FAMILY = {row.family: row.code for row in TABLE if row.family is not None}


def exit_code(error: SlipwayError) -> int:
    """The exit code for an error."""
    return _BY_FAMILY[type(error)]


def summary() -> str:
    """The table in a sentence, for the help."""
    return f"Exit codes: {', '.join(f'{row.code} {row.word}' for row in TABLE)}. Each error says its reason."
