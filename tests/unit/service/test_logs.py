"""Log lines: their shape, and what never gets into one."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from slipway_service.logs import LogFormat, LogLevel, configure, redact

TOKEN = "hf_" + "AbCdEfGh" * 4


class Captured:
    """Logging set up onto a buffer."""

    def __init__(self, style: LogFormat, level: LogLevel = LogLevel.INFO) -> None:
        self.stream = io.StringIO()
        configure(style=style, level=level, stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configured)
    structlog.contextvars.clear_contextvars()


def test_a_line_has_event_time_level_logger_and_the_request_it_belongs_to() -> None:
    captured = Captured(LogFormat.JSON)
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.stdlib.get_logger("slipway.test").info("loaded", model="models/a", seconds=1.5, ok=True)
    (line,) = captured.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "loaded",
        "level": "info",
        "logger": "slipway.test",
        "request_id": "r-1",
        "model": "models/a",
        "seconds": 1.5,
        "ok": True,
    }


def test_libraries_and_warnings_come_the_same_way() -> None:
    captured = Captured(LogFormat.JSON)
    structlog.contextvars.bind_contextvars(request_id="r-1")
    logging.getLogger("library").warning(
        "retry %d of %s", 3, "https://hub/x?sig=1", extra={"url": "https://hub/y?sig=2"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = captured.lines
    assert (first["event"], first["url"], first["request_id"]) == (
        "retry 3 of https://hub/x?***",
        "https://hub/y?***",
        "r-1",
    )
    assert "DeprecationWarning: old" in second["event"]


def test_levels() -> None:
    captured = Captured(LogFormat.JSON, LogLevel.WARNING)
    log = structlog.stdlib.get_logger("slipway.test")
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in captured.lines] == ["loud"]


def test_the_console_is_for_people() -> None:
    captured = Captured(LogFormat.CONSOLE)
    structlog.stdlib.get_logger("slipway.test").info("loaded", model="models/a")
    assert "loaded" in captured.text
    assert "model=models/a" in captured.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://cdn/x/y?X-Amz-Signature=abc&e=1 200", "GET https://cdn/x/y?*** 200"),
        ("'https://cdn/x?a=1', next", "'https://cdn/x?***', next"),
        ("https://user:pass@host/x", "https://***@host/x"),
        (f"token {TOKEN} refused", "token *** refused"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("{'authorization': 'Bearer abc', 'accept': '*'}", "{'authorization': '***', 'accept': '*'}"),
        ("Authorization: Basic dXNlcg==", "Authorization: ***"),
        ("sent bearer abc.def-g", "sent bearer ***"),
        ("api_org_abcdefgh1234", "***"),
        ("what is this? nothing", "what is this? nothing"),
        ("models/hf_small and https://hub/org/repo#x", "models/hf_small and https://hub/org/repo#x"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("style", LogFormat)
def test_no_secret_gets_out_by_any_way(style: LogFormat) -> None:
    captured = Captured(style)
    log = structlog.stdlib.get_logger("slipway.test")
    link = "https://cdn/blob?Signature=sesame"
    log.info(f"plain {TOKEN} {link}")
    log.info(
        "values", url=link, headers={"Authorization": f"Bearer {TOKEN}", "x": [link]}, token="sesame", hf_token="sesame"
    )
    log.info("objects", error=ValueError(link), raw=link.encode())
    log.info("positional %s", link)
    logging.getLogger("library").error("library %s", {"authorization": f"Bearer {TOKEN}"})
    try:
        raise RuntimeError(f"{link} with {TOKEN}") from ValueError("Authorization: Bearer sesame")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("library").exception("failed too")
    assert "sesame" not in captured.text
    assert TOKEN not in captured.text
    assert "Traceback" in captured.text
