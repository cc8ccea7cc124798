"""`slipway chat` against a gateway that streams as llama-server does."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from slipway.runner.v1.model_pb2 import Model
from slipway.runner.v1.model_service_pb2 import GetModelResponse
from slipway_client.cli.chat import chunks, refusal
from slipway_client.errors import Conflict, NotFound, Unavailable

from tests.integration.client.command import Ended, slipway
from tests.integration.client.fakes import FakeService, nobody, serving

pytestmark = pytest.mark.anyio

STREAM = b"".join(
    b"data: " + json.dumps(chunk).encode() + b"\n\n"
    for chunk in (
        {"choices": [{"delta": {"role": "assistant", "content": None}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "Grüß"}}]},
        {"choices": [{"delta": {"content": " dich"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 3}},
    )
)


@dataclass
class Gateway:
    """Answers every request with the same status and body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                gateway.requests.append((self.path, json.loads(self.rfile.read(length))))
                self.send_response(gateway.status)
                for name, value in gateway.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(gateway.body)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/v1"
            finally:
                server.shutdown()
                thread.join()


async def ask(gateway: Gateway, *arguments: str) -> Ended:
    with gateway.serving() as endpoint:
        fake = FakeService({"GetModel": GetModelResponse(model=Model(name="models/m", endpoint=endpoint))})
        async with serving(fake):
            return await slipway(fake, "chat", "m", "Hello", *arguments)


async def test_the_answer_is_printed_as_text() -> None:
    gateway = Gateway(STREAM + b"data: [DONE]\n\n")
    ended = await ask(gateway, "--system", "Be brief.", "--max-tokens", "5")
    assert (ended.code, ended.out) == (0, "Grüß dich\n")
    [(path, body)] = gateway.requests
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "stream": True,
        "max_tokens": 5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    }


async def test_the_answer_as_json_is_the_gateways_chunks() -> None:
    ended = await ask(Gateway(STREAM + b"data: [DONE]\n\n"), "--json")
    assert ended.documents[2] == {"choices": [{"delta": {"content": "Grüß"}}]}
    assert len(ended.documents) == 6


async def test_the_gateways_error() -> None:
    error = {"error": {"code": "MODEL_NOT_LOADED", "message": "MODEL_NOT_LOADED: it is at 43 %", "type": "x"}}
    gateway = Gateway(json.dumps(error).encode(), 503, {"Retry-After": "5"})
    ended = await ask(gateway)
    assert (ended.code, ended.err) == (5, "MODEL_NOT_LOADED: it is at 43 %\n  try again in 5.0 s\n")


async def test_an_answer_that_breaks_off_with_an_error() -> None:
    ended = await ask(Gateway(STREAM + b'data: {"error": {"message": "the backend has gone"}}\n\n'))
    assert ended.code == 9
    assert ended.out == "Grüß dich\n"
    assert ended.err == "HTTP_502: the backend has gone\n"


async def test_nobody_listens() -> None:
    with nobody() as address:
        endpoint = f"http://{address}/v1"
        fake = FakeService({"GetModel": GetModelResponse(model=Model(name="models/m", endpoint=endpoint))})
        async with serving(fake):
            ended = await slipway(fake, "chat", "m", "Hello")
    assert ended.code == 9
    assert ended.err.startswith(f"UNAVAILABLE: {endpoint}/chat/completions does not answer")


async def test_a_model_without_an_endpoint() -> None:
    fake = FakeService({"GetModel": GetModelResponse(model=Model(name="models/m"))})
    async with serving(fake):
        assert (await slipway(fake, "chat", "m", "Hello")).code == 5


def test_lines_that_are_no_data_are_passed_over() -> None:
    lines = [b": ping\n", b"event: x\n", b'data:{"a": 1}\n', b"\n", b"data: [DONE]\n", b'data: {"b": 2}\n']
    assert list(chunks(iter(lines))) == [{"a": 1}]


@pytest.mark.parametrize(
    ("status", "body", "family", "text"),
    [
        (404, b'{"error": {"code": "MODEL_NOT_FOUND", "message": "no m"}}', NotFound, "MODEL_NOT_FOUND: no m"),
        (503, b'{"error": "busy"}', Unavailable, "HTTP_503: busy"),
        (502, b"<html>Bad Gateway</html>", Unavailable, "HTTP_502: <html>Bad Gateway</html>"),
        (503, b'{"error": {"type": "NO_ACTIVE_MODEL", "message": "load one"}}', Conflict, "NO_ACTIVE_MODEL: load one"),
    ],
)
def test_refusals(status: int, body: bytes, family: type[Exception], text: str) -> None:
    error = refusal(status, body, None)
    assert (type(error), str(error)) == (family, text)
