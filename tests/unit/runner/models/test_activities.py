"""The background tasks of one model, which fail and are ended one by one."""

import asyncio
from contextlib import suppress

import anyio
import pytest
from slipway_runner.models.activities import Activities
from slipway_runner.progress.signals import Cause
from slipway_service.fault import Reason

pytestmark = pytest.mark.anyio


async def stray() -> None:
    """As libraries end that were written for asyncio alone: no cancel scope takes this for its own."""
    raise asyncio.CancelledError


async def waits_and_strays(waiting: anyio.Event) -> None:
    with suppress(asyncio.CancelledError):
        waiting.set()
        await anyio.sleep_forever()
    raise asyncio.CancelledError


async def test_a_cancellation_that_nobody_asked_for_breaks_one_model_and_not_the_runner() -> None:
    broken: list[tuple[str, Cause]] = []
    async with anyio.create_task_group() as tasks:
        Activities(tasks, "m", lambda name, cause: broken.append((name, cause))).start("pin", stray)
    assert not tasks.cancel_scope.cancel_called
    assert [(name, cause.reason) for name, cause in broken] == [("pin", Reason.INTERNAL)]


async def test_one_that_is_ended_takes_nobody_along() -> None:
    broken: list[tuple[str, Cause]] = []
    waiting = anyio.Event()
    async with anyio.create_task_group() as tasks:
        activities = Activities(tasks, "m", lambda name, cause: broken.append((name, cause)))
        activities.start("run", lambda: waits_and_strays(waiting))
        with anyio.fail_after(60):
            await waiting.wait()
        activities.end("run")
    assert not tasks.cancel_scope.cancel_called
    assert broken == []
