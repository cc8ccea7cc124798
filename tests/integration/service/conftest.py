"""Fixtures of the tests of what carries every service."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture
def log_events() -> Iterator[list[dict[str, Any]]]:
    """What was logged through structlog, unrendered, with the context of the call."""
    events: list[dict[str, Any]] = []

    def keep(_logger: Any, _name: str, event: Any) -> Any:
        events.append(dict(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    yield events
    structlog.configure(**before)
