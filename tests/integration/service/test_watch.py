"""Watches over a real server: the sequences of api.md's contract, and what happens to clients that misbehave."""

from pathlib import Path

import anyio
import anyio.lowlevel
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.common.v1 import watch_pb2
from slipway.runner.v1 import model_pb2, model_service_pb2
from slipway_service.eventlog import Bounds, EventLog
from slipway_service.fault import Reason
from slipway_service.watcher import Pace
from slipway_service.wire import event_field

from tests.integration.service.harness import PATIENCE, Running, fault_of, names, read, read_to_end, running

pytestmark = pytest.mark.anyio

Request = model_service_pb2.WatchModelsRequest


def load(log: EventLog, name: str, *, done: bool = False) -> None:
    log.append(name, event_field(model_pb2.ModelEvent(model=model_pb2.Model(name=name))), done=done)


def unload(log: EventLog, name: str) -> None:
    log.delete(name, event_field(model_pb2.ModelEvent(deleted=watch_pb2.Deleted(name=name))))


def progress(log: EventLog, name: str) -> None:
    log.progress(name, event_field(model_pb2.ModelEvent(progress=model_pb2.ModelProgressUpdate(name=name))))


async def test_state_then_synced_then_live(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        log = toy.toy.log
        load(log, "models/a")
        call = toy.models.WatchModels(Request())
        first = await read(call)
        assert (names(first), first.synced, first.reset) == (["+models/a"], True, False)
        assert (first.cursor.epoch, first.cursor.revision) == (log.epoch, 1)
        load(log, "models/b")
        second = await read(call)
        assert (names(second), second.synced, second.cursor.revision) == (["+models/b"], False, 2)
        unload(log, "models/a")
        assert names(await read(call)) == ["-models/a"]


async def test_the_state_of_nothing_is_synced_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        batch = await read(toy.models.WatchModels(Request()))
        assert (names(batch), batch.synced, batch.cursor.revision) == ([], True, 0)


async def test_a_mutation_answers_with_the_cursor_behind_which_a_watch_begins(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        answer = await toy.models.LoadModel(model_service_pb2.LoadModelRequest(id="a"))
        load(toy.toy.log, "models/b")
        batch = await read(toy.models.WatchModels(Request(after=answer.cursor)))
        assert (names(batch), batch.synced, batch.reset) == (["+models/b"], True, False)


@pytest.mark.parametrize(
    ("epoch", "revision"), [("another", 3), ("same", 99), ("same", 0)], ids=["another epoch", "the future", "compacted"]
)
async def test_a_cursor_that_cannot_be_replayed_gets_reset_and_the_state(
    tmp_path: Path, epoch: str, revision: int
) -> None:
    log = EventLog("same", bounds=Bounds(entries=2))
    async with running(tmp_path, log=log) as toy:
        for name in ("models/a", "models/b", "models/a"):
            load(log, name)
        batch = await read(toy.models.WatchModels(Request(after=watch_pb2.Cursor(epoch=epoch, revision=revision))))
        assert (names(batch), batch.synced, batch.reset) == (["+models/a", "+models/b"], True, True)
        assert batch.cursor.revision == 3


async def test_filters_hide_others_and_the_bookmark_carries_the_scanned_head(tmp_path: Path) -> None:
    async with running(tmp_path, pace=Pace(bookmark_interval=0.05)) as toy:
        call = toy.models.WatchModels(Request(names=["models/a"]))
        assert (await read(call)).synced
        load(toy.toy.log, "models/b")
        bookmark = await read(call)
        while bookmark.cursor.revision < 1:
            bookmark = await read(call)
        assert (names(bookmark), bookmark.synced) == ([], False)
        load(toy.toy.log, "models/a")
        batch = await read(call)
        while not batch.events:
            batch = await read(call)
        assert (names(batch), batch.cursor.revision) == (["+models/a"], 2)


async def test_a_transition_wakes_a_stream_that_lingers_over_progress(tmp_path: Path) -> None:
    hours = Duration(seconds=3600)
    async with running(tmp_path) as toy:
        log = toy.toy.log
        load(log, "models/a")
        call = toy.models.WatchModels(Request(min_progress_interval=hours))
        assert (await read(call)).synced
        progress(log, "models/a")
        await anyio.lowlevel.checkpoint()
        load(log, "models/b")
        batch = await read(call)
        assert names(batch) == ["+models/b"], "the progress still waits for its interval"
        load(log, "models/a")
        assert names(await read(call)) == ["+models/a"], "the transition has cleared the progress"


async def test_progress_comes_after_its_interval(tmp_path: Path) -> None:
    async with running(tmp_path, pace=Pace(progress_interval=0.05)) as toy:
        load(toy.toy.log, "models/a")
        call = toy.models.WatchModels(Request())
        assert (await read(call)).synced
        for _ in range(3):
            progress(toy.toy.log, "models/a")
        assert names(await read(call)) == ["~models/a"]


async def test_until_done_ends_with_ok_when_all_named_rest_or_are_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as toy:
        log = toy.toy.log
        load(log, "models/a")
        load(log, "models/b")
        call = toy.models.WatchModels(Request(names=["models/a", "models/b", "models/absent"], until_done=True))
        assert (await read(call)).synced
        load(log, "models/a", done=True)
        unload(log, "models/b")
        rest = await read_to_end(call)
        assert [name for batch in rest for name in names(batch)] == ["+models/a", "-models/b"]
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (Request(until_done=True), ["names"]),
        (Request(names=["models/a", "snapshots/b", "models/"]), ["names[1]", "names[2]"]),
        (Request(min_progress_interval=Duration(seconds=-1)), ["min_progress_interval"]),
        (Request(names=[f"models/{n}" for n in range(1001)]), ["names"]),
    ],
)
async def test_wrong_requests_name_every_field(tmp_path: Path, request_: Request, fields: list[str]) -> None:
    async with running(tmp_path) as toy:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_end(toy.models.WatchModels(request_))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [found.field for found in fault_of(caught.value).fields] == fields


async def test_drain_ends_watches_with_a_reason_and_a_time_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path, drain_grace=10.0) as toy:
        call = toy.models.WatchModels(Request())
        assert (await read(call)).synced
        toy.host.stop.ask()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_end(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        fault = fault_of(caught.value)
        assert (fault.reason, fault.retry_after) == (Reason.DRAINING, 1.0)


async def test_a_watcher_that_falls_out_of_the_log_is_reset_and_grows_nothing(tmp_path: Path) -> None:
    """A client that does not read: the server goes on with nothing but its old cursor, then starts it over."""
    log = EventLog("epoch", bounds=Bounds(entries=10))
    big = "x" * 100_000  # a few of these fill every buffer between the two ends
    async with running(tmp_path, log=log) as toy, small_window(toy) as channel:
        call = Running(toy.host, toy.toy, channel).models.WatchModels(Request())
        assert (await read(call)).synced
        for _ in range(200):
            event = model_pb2.ModelEvent(model=model_pb2.Model(name="models/a", uid=big))
            log.append("models/a", event_field(event))
            await anyio.lowlevel.checkpoint()
        batches = [await read(call)]
        while batches[-1].cursor.revision < 200:
            batches.append(await read(call))
        assert any(batch.reset for batch in batches)
        assert sum(len(batch.events) for batch in batches) < 100, "what the client did not read was not kept for it"


@pytest.mark.parametrize("size", [10_000, 200_000], ids=["after some messages", "with the first message"])
async def test_a_client_that_reads_nothing_for_the_limit_is_told_so_when_it_reads_again(
    tmp_path: Path, size: int
) -> None:
    async with running(tmp_path, stall_limit=0.2) as toy, small_window(toy) as channel:
        models = Running(toy.host, toy.toy, channel).models
        call = models.ReadModelLogs(model_service_pb2.ReadModelLogsRequest(offset=size))
        with anyio.fail_after(PATIENCE):
            await toy.toy.stalled.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught, anyio.fail_after(PATIENCE):
            async for _ in call:
                pass
        assert fault_of(caught.value).reason is Reason.STREAM_STALLED


def small_window(toy: Running) -> grpc.aio.Channel:
    """A connection whose client takes about 64 KiB before the server's writes block."""
    return toy.open_channel(options=[("grpc.http2.bdp_probe", 0)])
