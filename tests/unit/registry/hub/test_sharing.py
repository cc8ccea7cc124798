"""Answers are shared, for a while, and questions asked once."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from slipway_registry.hub.sharing import SharedAnswers

pytestmark = pytest.mark.anyio


class Asked:
    """A question that counts how often it is asked, and is answered when the test opens the gate."""

    def __init__(self) -> None:
        self.times = 0
        self.gate = anyio.Event()
        self.begun = anyio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.times += 1
        self.begun.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return self.times


@pytest.fixture
def asked() -> Asked:
    return Asked()


class Answers(SharedAnswers):
    """With a clock that a test moves."""

    def __init__(self, entries: int = 10) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now, entries)


async def collect(
    into: list[int | Exception], answers: SharedAnswers, ask: Callable[[], Awaitable[int]], key: str = "k"
) -> None:
    try:
        into.append(await answers.get(key, 60, ask))
    except Exception as error:
        into.append(error)


async def test_fifty_callers_ask_once(asked: Asked) -> None:
    answers, got = Answers(), list[int | Exception]()
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(collect, got, answers, asked)
        await asked.begun.wait()
        asked.gate.set()
    assert got == [1] * 50


async def test_an_answer_is_kept_for_its_time(asked: Asked) -> None:
    asked.gate.set()
    answers = Answers()
    assert await answers.get("k", 60, asked) == 1
    answers.now = 59.9
    assert await answers.get("k", 60, asked) == 1
    answers.now = 60.0
    assert await answers.get("k", 60, asked) == 2
    assert await answers.get("other", 60, asked) == 3


async def test_a_failure_goes_to_all_who_wait_and_is_not_kept(asked: Asked) -> None:
    answers, got = Answers(), list[int | Exception]()
    asked.error = LookupError("none")
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(collect, got, answers, asked)
        await asked.begun.wait()
        asked.gate.set()
    assert got == [asked.error] * 3
    asked.error = None
    assert await answers.get("k", 60, asked) == 2


async def test_when_the_first_gives_up_another_asks(asked: Asked) -> None:
    answers, got = Answers(), list[int | Exception]()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group, anyio.create_task_group() as first:
            first.start_soon(answers.get, "k", 60, asked)
            await asked.begun.wait()
            group.start_soon(collect, got, answers, asked)
            await anyio.lowlevel.checkpoint()
            asked.begun = anyio.Event()
            first.cancel_scope.cancel()
            group.start_soon(_open_when_begun, asked)
    assert got == [2]


async def _open_when_begun(asked: Asked) -> None:
    await asked.begun.wait()
    asked.gate.set()


async def test_the_oldest_answers_make_room(asked: Asked) -> None:
    asked.gate.set()
    answers = Answers(entries=2)
    await answers.get("a", 60, asked)
    await answers.get("b", 60, asked)
    await answers.get("a", 60, asked)  # used again: b is the oldest now
    await answers.get("c", 60, asked)
    assert asked.times == 3
    await answers.get("a", 60, asked)
    assert asked.times == 3
    await answers.get("b", 60, asked)
    assert asked.times == 4
