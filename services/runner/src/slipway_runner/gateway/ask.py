"""Asking a gateway on its control socket."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from slipway_runner.gateway.control import reachable

REPLY_SECONDS = 5.0
"""For an answer; only a process that hangs takes longer."""

UNANSWERED = (aiohttp.ClientError, TimeoutError, OSError)
"""What is raised when nobody is there, or hangs."""


async def ask(
    socket: Path,
    method: str,
    path: str,
    document: Mapping[str, object] | None = None,
    *,
    patience: float = REPLY_SECONDS,
) -> Any:
    """The JSON that a question is answered with.

    Raises:
        OSError, aiohttp.ClientError, TimeoutError: there is no good answer; `UNANSWERED` has them all.
    """
    with reachable(socket) as place:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(place), timeout=aiohttp.ClientTimeout(total=patience)
            ) as session,
            session.request(method, f"http://gateway{path}", json=document, raise_for_status=True) as answer,
        ):
            return await answer.json()
