"""Clients that stream from a gateway all the time, and notice when a stream is cut or refused."""

import itertools
from dataclasses import dataclass, field

import aiohttp
import anyio

PATH = "/v1/completions"
_END = b"data: [DONE]"
_PAUSE = 0.05
"""Seconds between two streams of a client; and between two attempts while its model is away."""


@dataclass
class Client:
    """One client of one model.

    Attributes:
        model: whom it asks.
        tokens: how long its streams are.
        arrived: pieces of streams that it has got.
        ended: streams that came to their end.
        faults: what happened to the others.
    """

    model: str
    tokens: int
    arrived: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)

    async def stream_for_ever(self, gateway: str, session: aiohttp.ClientSession) -> None:
        """Ask again and again."""
        for number in itertools.count():
            try:
                await self._stream(gateway, session)
            except aiohttp.ClientError as error:
                self.faults.append(f"stream {number} of {self.model} was cut: {error!r}")
            await anyio.sleep(_PAUSE)

    async def _stream(self, gateway: str, session: aiohttp.ClientSession) -> None:
        body = {"model": self.model, "prompt": "Hi", "max_tokens": self.tokens, "stream": True, "ignore_eos": True}
        async with session.post(gateway + PATH, json=body) as answer:
            if answer.status != 200:
                self.faults.append(f"{self.model} was refused: {answer.status} {(await answer.text())[:200]}")
                return
            last = b""
            async for line in answer.content:
                self.arrived += 1
                last = line.strip() or last
            if last == _END:
                self.ended += 1
            else:
                self.faults.append(f"a stream of {self.model} ended with {last[:100]!r}")


async def until_flowing(clients: list[Client], seconds: float = 60.0) -> None:
    """Wait until every client gets more; then what happened to it before is forgotten."""
    before = [one.arrived for one in clients]
    with anyio.fail_after(seconds):
        while any(one.arrived <= was for one, was in zip(clients, before, strict=True)):  # noqa: ASYNC110
            await anyio.sleep(0.02)
    for one in clients:
        one.faults.clear()
