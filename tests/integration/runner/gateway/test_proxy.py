"""What clients and backends see of the gateway, request by request."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from slipway_runner.backends.base import Task
from slipway_runner.gateway.refusal import Refusal
from slipway_runner.gateway.routes import Route, Table
from slipway_runner.models.states import State

from tests.integration.runner.gateway.public import public, raw_connection, refused
from tests.integration.runner.gateway.upstream import (
    Upstream,
)

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


async def test_a_request_reaches_the_backend_as_it_was_but_for_its_model(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    raw = '{"n":1e400,"n":12345678901234567890123, "model":"gpt" ,"messages":[{"content":"ü\\ud800"}],"x":0.10}'
    async with public(backend.route(aliases=("gpt",), api_key="backend key")) as on:
        headers = {
            "Authorization": "Bearer client key",
            "Cookie": "a=b",
            "X-Api-Key": "client key",
            "Accept": "text/event-stream",
        }
        async with client.post(on.url + CHAT + "?a=b", data=raw.encode(), headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"answer": "yes"})
    (asked,) = backend.asked
    assert asked.path == CHAT
    assert asked.body == raw.replace('"gpt"', '"served/m"').encode()
    assert asked.headers == {
        "host": f"127.0.0.1:{backend.port}",
        "authorization": "Bearer backend key",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(asked.body)),
        "connection": "close",
    }


async def test_a_backend_without_a_key_gets_none(backend: Upstream, client: aiohttp.ClientSession) -> None:
    async with public(backend.route()) as on:
        await client.post(on.url + CHAT, json={"model": "m"}, headers={"Authorization": "Bearer client key"})
    assert "authorization" not in backend.asked[0].headers


async def test_paths_are_the_backends_own(backend: Upstream, client: aiohttp.ClientSession) -> None:
    paths = {"/v1/embeddings": "/embeddings", "/v1/rerank": "/api/rerank"}
    async with public(backend.route(task=Task.EMBED, paths=paths, active=True)) as on:
        await client.post(f"{on.url}/v1/embeddings", json={"input": "a"})
        await client.post(f"{on.url}/v1/rerank", json={"model": "m"})
    assert [asked.path for asked in backend.asked] == ["/embeddings", "/api/rerank"]
    assert [asked.document["model"] for asked in backend.asked] == ["served/m", "served/m"]


async def test_answers_come_as_they_are_without_what_only_the_backend_means(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        body = gzip.compress(b'{"error": "too long"}')
        headers = {
            "Content-Encoding": "gzip",
            "Content-Type": "application/problem+json",
            "Retry-After": "7",
            "Set-Cookie": "session=1",
            "X-Backend": "secret",
        }
        return web.Response(body=body, status=422, headers=headers)

    backend.answer = answer
    async with public(backend.route()) as on, client.post(on.url + CHAT, json={"model": "m"}) as said:
        assert said.status == 422
        assert await said.json(content_type="application/problem+json") == {"error": "too long"}
        assert {name for name in said.headers if name != "Date"} == {
            "Content-Type",
            "Content-Encoding",
            "Content-Length",
            "Retry-After",
            "Server",
        }
        async with client.post(on.url + CHAT, json={"model": "m"}) as again:
            assert await again.read()
            assert "cookie" not in backend.asked[1].headers
        await on.counted(422, 2)


async def test_redirects_of_a_backend_are_not_followed(backend: Upstream, client: aiohttp.ClientSession) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    backend.answer = away
    async with (
        public(backend.route(api_key="key")) as on,
        client.post(on.url + CHAT, json={"model": "m"}, allow_redirects=False) as said,
    ):
        assert said.status == 307
        assert "Location" not in said.headers
    assert len(backend.asked) == 1


async def test_a_backend_that_does_not_take_our_key_is_not_the_clients_fault(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async def deny(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, text=f"not {request.headers['Authorization']}")

    backend.answer = deny
    async with (
        public(backend.route(api_key="backend key")) as on,
        client.post(on.url + CHAT, json={"model": "m"}) as said,
    ):
        error = await refused(said, 502)
        assert "backend key" not in str(error)


async def test_a_model_that_loads_is_worth_waiting_for(backend: Upstream, client: aiohttp.ClientSession) -> None:
    loading = backend.route(state=State.LOADING, fraction=0.4, detail="loading weights, shard 2/5")
    async with public(loading) as on:
        async with client.post(on.url + CHAT, json={"model": "m"}) as said:
            error = await refused(said, 503)
            assert said.headers["Retry-After"] == "2"
            assert error["progress"] == 0.4
            assert error["message"] == "MODEL_NOT_LOADED: m is loading (40%): loading weights, shard 2/5"
        on.proxy.replace_table(Table([replace(loading, state=State.LOADED)]))
        async with client.post(on.url + CHAT, json={"model": "m"}) as said:
            assert said.status == 200
        assert on.count(503, model="") == 1


class Noticing(Table):
    """Tells when it was asked."""

    asked: anyio.Event

    def choose(self, path: str, model: str | None) -> Route | Refusal:
        self.asked.set()
        return super().choose(path, model)


@pytest.mark.parametrize("before", ["unknown", "loading", "inactive"])
async def test_a_request_waits_for_a_model_that_comes_in_a_moment(
    backend: Upstream, client: aiohttp.ClientSession, before: str
) -> None:
    there = backend.route(active=True)
    known = {
        "unknown": [],
        "loading": [replace(there, state=State.LOADING)],
        "inactive": [replace(there, active=False)],
    }
    first = Noticing(known[before])
    first.asked = anyio.Event()
    async with public() as on, anyio.create_task_group() as tasks:
        on.proxy.replace_table(first)

        async def tell() -> None:
            await first.asked.wait()
            on.proxy.replace_table(Table([there]))

        tasks.start_soon(tell)
        async with client.post(on.url + CHAT, json={} if before == "inactive" else {"model": "m"}) as said:
            assert said.status == 200, await said.text()


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b'{"model":"nobody"}', 404, "MODEL_NOT_FOUND"),
        (b"{}", 503, "NO_ACTIVE_MODEL"),
        (b"", 400, "INVALID_FIELDS"),
        (b"[]", 400, "INVALID_FIELDS"),
        (b'{"model":5}', 400, "INVALID_FIELDS"),
        (b'{"model":"\\ud800"}', 404, "MODEL_NOT_FOUND"),
        (b'{"model":"m","model":"m"}', 400, "INVALID_FIELDS"),
    ],
)
async def test_requests_for_no_model_are_refused_in_openais_form(
    backend: Upstream, client: aiohttp.ClientSession, raw: bytes, status: int, code: str
) -> None:
    async with public(backend.route()) as on, client.post(on.url + CHAT, data=raw) as said:
        assert (await refused(said, status))["code"] == code
    assert backend.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/v1/../metrics", 404),
        ("POST", "/v1/%2e%2e/v1/load_lora_adapter", 404),
        ("POST", "/slots/0?action=erase", 404),
        ("POST", "/v1/models", 405),
        ("GET", "/metrics", 404),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/m", 405),
        ("GET", "/", 404),
        ("GET", "/table", 404),
        ("POST", "/stop", 404),
    ],
)
async def test_only_inference_passes(
    backend: Upstream, client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with public(backend.route()) as on:
        reader, writer = await raw_connection(on)
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 13\r\n\r\n".encode()
            + b'{"model":"m"}'
        )
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert json.loads(body)["error"]["code"] == "NOT_IMPLEMENTED"
    assert backend.asked == []


async def test_models_are_listed_under_all_their_names(backend: Upstream, client: aiohttp.ClientSession) -> None:
    first = backend.route("a", aliases=("one",), repo_id="org/a", create_time=12.5, api_key="backend key", active=True)
    second = backend.route("b", state=State.LOADING)
    async with public(first, second) as on:
        async with client.get(f"{on.url}/v1/models") as said:
            text = await said.text()
            assert "backend key" not in text
            listed = json.loads(text)["data"]
        assert [one["id"] for one in listed] == ["a", "b"]
        assert listed[0] == {
            "id": "a",
            "object": "model",
            "created": 12,
            "owned_by": "slipway",
            "aliases": ["one"],
            "repo_id": "org/a",
            "task": "generate",
            "state": "LOADED",
            "active": True,
            "on_demand": False,
        }
        for name in ("a", "one", "org/a"):
            async with client.get(f"{on.url}/v1/models/{name}") as said:
                assert await said.json() == listed[0]
        async with client.get(f"{on.url}/v1/models/c") as said:
            await refused(said, 404)
        async with client.get(f"{on.url}/health") as said:
            assert said.status == 200


async def test_a_gateway_that_was_told_nothing_asks_for_patience(client: aiohttp.ClientSession) -> None:
    async with public(told=False) as on:
        for method, path in (("GET", "/health"), ("GET", "/v1/models"), ("GET", "/v1/models/m"), ("POST", CHAT)):
            async with client.request(method, on.url + path, json={"model": "m"}) as said:
                await refused(said, 503)
                assert said.headers["Retry-After"] == "2"


# Bodies.


async def test_with_keys_nobody_comes_in_without_one(
    backend: Upstream, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with public(backend.route(), keys=keys) as on:
        for authorization in ("", "Bearer wrong", "Basic right"):
            for path in (CHAT, "/v1/anything"):
                headers = {"Authorization": authorization}
                async with client.post(on.url + path, json={"model": "m"}, headers=headers) as said:
                    error = await refused(said, 401)
                    assert error["code"] == "invalid_api_key"
        async with client.get(f"{on.url}/v1/models") as said:
            assert said.status == 401
        async with client.get(f"{on.url}/health") as said:
            assert said.status == 200
        assert backend.asked == []
        async with client.post(on.url + CHAT, json={"model": "m"}, headers={"Authorization": "Bearer right"}) as said:
            assert said.status == 200
        assert "authorization" not in backend.asked[0].headers
