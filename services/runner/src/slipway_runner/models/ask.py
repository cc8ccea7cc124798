"""Asking a backend over HTTP, as its adapter says what to ask."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self

import aiohttp

from slipway_runner.backends.base import HttpQuestion, Judgement, Launch

# Answers are judged by their beginning; no good answer to our questions is longer.
_ANSWER_BYTES = 256 * 1024

# What `aiohttp` raises when there is nobody, or nobody any more, on the other side.
_UNANSWERED = (aiohttp.ClientError, TimeoutError, OSError)


class Asker:
    """Asks backends of this host. To be used as an asynchronous context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A connection for each question: several backends do not stop while an idle one is open. No proxy, no cookies.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, launch: Launch, question: HttpQuestion) -> Judgement:
        """Ask once. No answer at all is a judgement too: not good yet."""
        try:
            status, body = await self.answer(launch, question)
        except _UNANSWERED as error:
            return Judgement(good=False, why=str(error) or type(error).__name__)
        return question.judge(status, body)

    async def answer(self, launch: Launch, question: HttpQuestion) -> tuple[int, bytes]:
        """The status and the beginning of the body. Raises what aiohttp raises, TimeoutError and OSError."""
        timeout = aiohttp.ClientTimeout(total=question.timeout)
        async with self._request(launch, question, timeout) as response:
            return response.status, await _beginning(response)

    async def events(self, launch: Launch, question: HttpQuestion) -> AsyncGenerator[str, None]:
        """The `data:` of each server-sent event of the answer, however long it is silent: that is for the stall timer.

        Raises what aiohttp raises, and OSError.
        """
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._request(launch, question, timeout) as response, aclosing(_lines(response)) as lines:
            async for line in lines:
                if line.startswith("data:"):
                    yield line.removeprefix("data:").strip()

    def _request(
        self, launch: Launch, question: HttpQuestion, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.client._RequestContextManager:  # it has no public name
        assert self._session is not None, "use it as a context manager"
        return self._session.request(
            question.method,
            f"http://{launch.host}:{launch.port}{question.path}",
            headers=dict(question.headers),
            data=question.body,
            timeout=timeout,
            allow_redirects=False,
        )


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= _ANSWER_BYTES:
            break
    return body


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    pending = b""
    async for chunk in response.content.iter_any():
        *complete, pending = (pending + chunk)[-_ANSWER_BYTES:].split(b"\n")
        for line in complete:
            yield line.decode(errors="replace").rstrip("\r")
