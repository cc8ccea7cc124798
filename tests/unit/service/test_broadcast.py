"""The loop around watchers: what wakes it and what does not."""

import anyio
import pytest
from slipway_service.broadcast import Broadcast, Subscription
from slipway_service.eventlog import EventLog, Filter
from slipway_service.fault import Fault, Reason
from slipway_service.watcher import Batch, Watch

from tests.unit.service.watching import load, progress, said

pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> EventLog:
    return EventLog("epoch")


async def settle() -> None:
    """Let every task that was woken run until it waits again."""
    await anyio.wait_all_tasks_blocked()


async def receive(subscription: Subscription, into: list[Batch | None]) -> None:
    into.append(await subscription.receive())


async def test_progress_wakes_a_watcher_once_and_not_again_while_it_lingers(log: EventLog) -> None:
    load(log, "models/a")
    broadcast = Broadcast(log)
    subscription = broadcast.subscribe(Watch(min_progress_interval=3600))
    await subscription.receive()
    waits: list[int] = []
    wait = broadcast.wait

    async def counted(watcher: object) -> None:
        waits.append(1)
        await wait(watcher)  # type: ignore[arg-type]

    broadcast.wait = counted  # type: ignore[method-assign]
    got: list[Batch | None] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive, subscription, got)
        for _ in range(10):
            await settle()
            progress(log, "models/a")
        await settle()
        assert (len(waits), got) == (2, []), "once for the first progress, then not before its interval"
        load(log, "models/b")
    assert [said(batch) for batch in got] == [["+models/b"]]


async def test_all_wait_on_the_same_event_and_all_are_woken(log: EventLog) -> None:
    broadcast = Broadcast(log)
    subscriptions = [broadcast.subscribe(Watch()) for _ in range(100)]
    for subscription in subscriptions:
        await subscription.receive()
    got: list[Batch | None] = []
    async with anyio.create_task_group() as tasks:
        for subscription in subscriptions:
            tasks.start_soon(receive, subscription, got)
        await settle()
        load(log, "models/a")
    assert [said(batch) for batch in got] == [["+models/a"]] * 100


async def test_what_happens_between_two_reads_shares_a_batch(log: EventLog) -> None:
    subscription = Broadcast(log).subscribe(Watch())
    await subscription.receive()
    for name in ("models/a", "models/b", "models/c"):
        load(log, name)
    assert said(await subscription.receive()) == ["+models/a", "+models/b", "+models/c"]


async def test_drain_ends_those_that_wait_and_those_that_come(log: EventLog) -> None:
    broadcast = Broadcast(log)
    waiting = broadcast.subscribe(Watch())
    await waiting.receive()
    ended: list[Reason] = []

    async def until_ended(subscription: Subscription) -> None:
        with pytest.raises(Fault) as caught:
            await subscription.receive()
        ended.append(caught.value.reason)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_ended, waiting)
        await settle()
        broadcast.drain()
    await until_ended(broadcast.subscribe(Watch()))
    assert ended == [Reason.DRAINING, Reason.DRAINING]


async def test_serve_writes_until_done(log: EventLog) -> None:
    written: list[list[str]] = []

    async def write(batch: Batch) -> None:
        written.append(said(batch))
        if len(written) == 1:
            load(log, "models/a", done=True)

    watch = Watch(wanted=Filter(names=frozenset({"models/a"})), until_done=True)
    load(log, "models/a")
    with anyio.fail_after(60):
        await Broadcast(log).serve(watch, write)
    assert written == [["+models/a"], ["+models/a"]]
