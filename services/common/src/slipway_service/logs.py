"""Logs: structlog, one line an event, with the request id of the call it belongs to and without secrets.

Everything goes to standard error, what libraries log through the standard module too. Values are redacted before they
are rendered, tracebacks included: URL queries (signed links), user info in URLs, bearer and Hub tokens.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "***"

_HEADER = r"(authorization['\"]?\s*[:=,]\s*(?:b?['\"])?)"

_SECRETS = (
    # the query of a URL, and its user info: signed links are credentials
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"<>]*)\?[^\s'\"<>]*", re.IGNORECASE), rf"\1?{REDACTED}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"<>]+@", re.IGNORECASE), rf"\1{REDACTED}@"),
    # `Authorization: Basic …`, also as an item of a printed dict
    (re.compile(rf"{_HEADER}(?:(?:bearer|basic)\s+)?[^\s'\",}}\])]+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer)\s+[^\s'\",}\])]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    # Hub tokens: hf_… of users, api_org_… of organisations
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}"), REDACTED),
)

_SECRET_NAMES = re.compile(r"(^|[_-])(token|secret|password|authorization|api_key)$", re.IGNORECASE)


class LogFormat(StrEnum):
    """How lines look."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def redact(text: str) -> str:
    """The text without what could be a credential."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure(*, style: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Set up logging for the process; again, to change it."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(style, handler.stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def _renderer(style: LogFormat, stream: Any) -> Processor:
    if style is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _redact_event(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if not key.startswith("_"):  # structlog's own: the record and whether it came from structlog
            event[key] = _redact_value(key, value)
    return event


def _redact_value(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if _SECRET_NAMES.search(name):
        return REDACTED
    if isinstance(value, MutableMapping):
        return {key: _redact_value(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(name, inner) for inner in value]
    return redact(str(value))
