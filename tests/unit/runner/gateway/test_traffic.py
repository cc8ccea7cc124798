"""Counting requests, and waiting for the last of them."""

import anyio
import pytest
from slipway_runner.gateway.traffic import Traffic

pytestmark = pytest.mark.anyio


async def test_a_model_is_idle_when_its_last_request_has_ended() -> None:
    traffic = Traffic()
    first, second = traffic.counted("a"), traffic.counted("a")
    first.__enter__()
    second.__enter__()
    async with anyio.create_task_group() as tasks:
        ended: list[bool] = []

        async def wait() -> None:
            ended.append(await traffic.idle("a", 30))

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        first.__exit__(None, None, None)
        await anyio.wait_all_tasks_blocked()
        assert ended == []
        second.__exit__(None, None, None)
    assert ended == [True]


async def test_waiting_ends_when_its_time_is_over() -> None:
    traffic = Traffic()
    with traffic.counted("a"):
        assert not await traffic.idle("a", 0)
        assert not await traffic.all_idle(0)
        assert await traffic.idle("b", 0)
    assert await traffic.all_idle(0)


async def test_other_models_requests_do_not_hold_a_model_up() -> None:
    traffic = Traffic()
    with traffic.counted("a"), traffic.counted("b"):
        pass
    with traffic.counted("b"):
        assert await traffic.idle("a", 0)


async def test_use_is_what_runs_and_when_it_last_changed() -> None:
    traffic = Traffic()
    assert traffic.use() == {}
    with traffic.counted("a"):
        began = traffic.use()["a"]
        assert began["in_flight"] == 1
        traffic.forget_all_but([])
        assert set(traffic.use()) == {"a"}, "it still answers"
    ended = traffic.use()["a"]
    assert ended["in_flight"] == 0
    assert ended["last_use"] >= began["last_use"]
    traffic.forget_all_but({"b"})
    assert traffic.use() == {}


async def test_a_request_that_fails_is_over_too() -> None:
    traffic = Traffic()
    with pytest.raises(ZeroDivisionError), traffic.counted("a"):
        raise ZeroDivisionError
    assert await traffic.all_idle(0)
