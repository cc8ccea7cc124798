"""`slipway chat`: one question to a loaded model, through the runner's gateway."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import grpc
import typer
from slipway.runner.v1.model_pb2 import Model

from slipway_client.cli.models import ModelId, short_id
from slipway_client.cli.session import Session, session
from slipway_client.errors import Conflict, Details, SlipwayError, Unavailable, family

ANSWER_TIMEOUT = 300.0
"""Seconds between two pieces of an answer: a long prompt on a CPU takes minutes to its first token."""


def chat(
    context: typer.Context,
    ident: ModelId,
    question: Annotated[str, typer.Argument(metavar="TEXT", help="What to ask.")],
    system: Annotated[str, typer.Option(help="Instructions for the model.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
) -> None:
    """Ask a loaded model, and print its answer as it comes."""
    current = session(context)

    async def work() -> Model:
        async with current.runner() as runner:
            return (await runner.get_model(ident)).model

    model = current.run(work)
    if not model.endpoint:
        raise Conflict("MODEL_NOT_LOADED", f"{short_id(model)} has no endpoint; `slipway ps` shows how it stands")
    messages = [{"role": "system", "content": system}] if system else []
    body = {
        "model": short_id(model),
        "stream": True,
        "messages": [*messages, {"role": "user", "content": question}],
        **({"max_tokens": max_tokens} if max_tokens else {}),
    }
    with _post(f"{model.endpoint}/chat/completions", body) as response:
        _print(current, chunks(response))


@contextmanager
def _post(url: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request; raises SlipwayError when it is not one."""
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=ANSWER_TIMEOUT)
    try:
        connection.request("POST", parts.path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise refusal(response.status, response.read(), response.getheader("Retry-After"))
        yield response
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error
    finally:
        connection.close()


def chunks(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The events of a stream of server-sent events, up to `[DONE]` (OpenAI's streaming format).

    Raises:
        SlipwayError: an event says that the answer failed.
    """
    for line in lines:
        field, _, value = line.decode("utf-8", errors="replace").strip().partition(":")
        if field != "data":
            continue
        if value.strip() == "[DONE]":
            return
        chunk = json.loads(value)
        if "error" in chunk:
            raise refusal(http.client.BAD_GATEWAY, json.dumps(chunk).encode(), None)
        yield chunk


def refusal(status: int, body: bytes, retry_after: str | None) -> SlipwayError:
    """The gateway's error: its reason where it names one, else the HTTP status."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        error = body.decode("utf-8", errors="replace").strip()[:200]
    details = error if isinstance(error, dict) else {"message": str(error)}
    reason = str(details.get("code") or details.get("type") or f"HTTP_{status}")
    code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    text = str(details.get("message", "")).removeprefix(f"{reason}:").strip()
    return family(reason, code)(reason, text, code=code, details=Details(retry_after=seconds))


_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _unreachable(url: str, error: Exception) -> SlipwayError:
    return Unavailable("UNAVAILABLE", f"{url} does not answer: {error or type(error).__name__}", code=_CODES[503])


def _print(current: Session, events: Iterator[dict[str, Any]]) -> None:
    """Every event as JSON, or the tokens as they come, with an end of line also when the answer breaks off."""
    if current.as_json:
        for event in events:
            current.output.json(event)
        return
    console = current.output.console
    last = "\n"
    try:
        for text, style in _pieces(events):
            if style and not console.is_terminal:
                continue
            console.print(text, end="", style=style, soft_wrap=True)
            console.file.flush()
            last = text
    finally:
        if not last.endswith("\n"):
            current.output.line()


def _pieces(events: Iterator[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Texts of an answer; what a model thinks before it answers is dim, and for terminals only."""
    for event in events:
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning_content"):
                yield thought, "dim"
            if text := delta.get("content"):
                yield text, ""
