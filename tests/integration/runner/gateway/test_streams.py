"""Bodies and streams on their way through the gateway, to their end or to a break."""

import gzip
import json
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from slipway_runner.gateway.intake import MOST_BODY_BYTES
from slipway_runner.process.ports import Ports

from tests.integration.runner.gateway.public import public, raw_connection, refused
from tests.integration.runner.gateway.upstream import (
    Spoken,
    Upstream,
    cut,
    for_ever,
    pieces,
    stay,
)

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("size", [1000, (1 << 20) + 1, 8 << 20])
async def test_bodies_of_any_size_arrive_whole(backend: Upstream, client: aiohttp.ClientSession, size: int) -> None:
    document = {"image": "A" * size, "model": "m"}
    async with public(backend.route()) as on:
        async with client.post(on.url + CHAT, data=pieces_of(json.dumps(document).encode())) as said:
            assert said.status == 200
        assert backend.asked[0].document == {**document, "model": "served/m"}
        assert backend.asked[0].headers["content-length"] == str(len(backend.asked[0].body))


@pytest.mark.parametrize("declared", [True, False])
async def test_too_large_is_said_before_it_fills_the_memory(
    backend: Upstream, client: aiohttp.ClientSession, declared: bool
) -> None:
    sent = 0

    async def body() -> Any:
        nonlocal sent
        for _ in range(3 * MOST_BODY_BYTES >> 20):
            sent += 1 << 20
            yield b"[" * (1 << 20)

    headers = {"Content-Length": str(3 * MOST_BODY_BYTES)} if declared else {}
    async with public(backend.route()) as on:
        async with client.post(on.url + CHAT, data=body(), headers=headers) as said:
            await refused(said, 413)
        assert on.count(413, model="") == 1
    assert backend.asked == []
    assert sent < 2 * MOST_BODY_BYTES


async def test_the_largest_body_passes(backend: Upstream, client: aiohttp.ClientSession) -> None:
    raw = b'{"model":"m","a":"' + b"x" * (MOST_BODY_BYTES - 20) + b'"}'
    assert len(raw) == MOST_BODY_BYTES
    async with public(backend.route()) as on:
        async with client.post(on.url + CHAT, data=pieces_of(raw)) as said:
            assert said.status == 200
        async with client.post(on.url + CHAT, data=pieces_of(raw + b" ")) as said:
            await refused(said, 413)


async def test_compressed_requests_are_refused(backend: Upstream, client: aiohttp.ClientSession) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    async with (
        public(backend.route()) as on,
        client.post(on.url + CHAT, data=bomb, headers={"Content-Encoding": "gzip"}) as said,
    ):
        await refused(said, 415)


# Streams.


async def test_a_stream_passes_word_by_word(backend: Upstream, client: aiohttp.ClientSession) -> None:
    spoken = Spoken()
    backend.answer = spoken
    async with (
        public(backend.route()) as on,
        client.post(on.url + CHAT, json={"model": "m", "stream": True}) as said,
    ):
        assert said.content_type == "text/event-stream"
        for word in (b"data: one\n\n", b"data: two\n\n", b"x"):
            await spoken.say(word)
            assert await said.content.readany() == word
        spoken.end()
        assert await said.content.readany() == b""
        await on.counted(200)


async def test_the_answers_head_comes_before_its_first_word(backend: Upstream, client: aiohttp.ClientSession) -> None:
    backend.answer = pieces(then=stay)
    with anyio.fail_after(30):
        async with public(backend.route()) as on, client.post(on.url + CHAT, json={"model": "m"}) as said:
            assert said.status == 200


async def test_a_client_that_goes_cancels_its_request(backend: Upstream, client: aiohttp.ClientSession) -> None:
    backend.answer = pieces(b"data: one\n\n", then=stay)
    async with public(backend.route()) as on:
        said = await client.post(on.url + CHAT, json={"model": "m"})
        assert await said.content.readany()
        assert on.proxy.traffic.use()["uid of m"]["in_flight"] == 1
        said.close()
        with anyio.fail_after(30):
            await backend.cancelled.wait()
            assert await on.proxy.traffic.idle("uid of m", 30)
        await on.counted(499)


async def test_a_client_that_goes_before_the_first_byte_cancels_its_request(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    backend.answer = for_ever
    async with public(backend.route()) as on:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await client.post(on.url + CHAT, json={"model": "m"})

            tasks.start_soon(ask)
            await backend.arrived.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(30):
            await backend.cancelled.wait()
            assert await on.proxy.traffic.idle("uid of m", 30)
        await on.counted(499)


async def test_a_client_that_goes_while_it_sends_asks_nobody(backend: Upstream) -> None:
    async with public(backend.route()) as on:
        _, writer = await raw_connection(on)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + b'{"model":')
        await writer.drain()
        writer.transport.abort()
        async with aiohttp.ClientSession() as other, other.post(on.url + CHAT, json={"model": "m"}) as said:
            assert said.status == 200
    assert len(backend.asked) == 1


async def test_a_backend_that_breaks_off_cuts_the_client(backend: Upstream, client: aiohttp.ClientSession) -> None:
    backend.answer = pieces(b"data: one\n\n", then=cut)
    async with public(backend.route()) as on, client.post(on.url + CHAT, json={"model": "m"}) as said:
        assert said.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await said.content.read()
        await on.counted(502)


async def test_a_backend_that_breaks_off_within_its_length_cuts_the_client(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 100
        await response.prepare(request)
        await response.write(b"x" * 50)
        cut(request)
        return response

    backend.answer = half
    async with public(backend.route()) as on, client.post(on.url + CHAT, json={"model": "m"}) as said:
        with pytest.raises(aiohttp.ClientPayloadError):
            await said.content.read()


async def test_a_backend_that_breaks_off_before_its_answer_is_a_502(
    backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async def nothing(request: web.Request) -> web.StreamResponse:
        cut(request)
        return await for_ever(request)

    backend.answer = nothing
    async with public(backend.route()) as on, client.post(on.url + CHAT, json={"model": "m"}) as said:
        error = await refused(said, 502)
        assert error["code"] == "BACKEND_EXITED"
        assert said.headers["Retry-After"] == "2"
        await on.counted(502)


async def test_a_backend_that_does_not_accept_is_a_502(backend: Upstream, client: aiohttp.ClientSession) -> None:
    ports = Ports()
    closed = ports.hold()
    try:
        async with (
            public(backend.route(port=closed)) as on,
            client.post(on.url + CHAT, json={"model": "m"}) as said,
        ):
            error = await refused(said, 502)
            assert error["code"] == "BACKEND_UNRESPONSIVE"
            assert "does not accept connections" in error["message"]
    finally:
        ports.close()


async def test_a_client_that_takes_nothing_is_cut_off_in_the_end(backend: Upstream) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    backend.answer = flood
    async with public(backend.route(), stall_seconds=1) as on:
        reader, writer = await raw_connection(on, limit=1)
        writer.write(f'POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{{"model":"m"}}'.encode())
        with anyio.fail_after(60):
            await backend.cancelled.wait()
        writer.transport.abort()
        assert reader is not None


# Keys.


async def pieces_of(raw: bytes) -> Any:
    for start in range(0, len(raw), 1 << 20):
        yield raw[start : start + (1 << 20)]
