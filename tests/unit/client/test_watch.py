"""The watch loop against a scripted server, without sockets or time."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import anyio
import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1.download_pb2 import Download, DownloadEvent, DownloadProgressUpdate
from slipway.registry.v1.download_service_pb2 import WatchDownloadsResponse as Batch
from slipway_client.backoff import Backoff
from slipway_client.downloads import DOWNLOADS
from slipway_client.errors import Details, SlipwayError, Unavailable, family
from slipway_client.events import Changed, Event, Progressed, Removed, Reset, Synced
from slipway_client.watch import Watch, is_resumable

from tests.unit.client.watched_log import WatchedLog

pytestmark = pytest.mark.anyio

DownloadsEvent = Event[Download, DownloadProgressUpdate]


def failed(code: grpc.StatusCode, reason: str = "", retry_after: float | None = None) -> SlipwayError:
    details = Details(retry_after=retry_after, from_service=bool(reason))
    return family(reason, code)(reason or code.name, "scripted", code=code, details=details)


LOST = failed(grpc.StatusCode.UNAVAILABLE)


@dataclass
class Sleeper:
    """A clock that only counts."""

    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def backoff(self, draw: float = 1.0) -> Backoff:
        return Backoff(first=1.0, longest=8.0, draw=lambda: draw, sleep=self.sleep)


@dataclass
class Script:
    """Opens one scripted stream after the other and keeps the cursors it was asked for."""

    streams: list[list[Batch | SlipwayError]]
    asked: list[Cursor | None] = field(default_factory=list)
    closed: int = 0

    def open(self, after: Cursor | None) -> "ScriptedStream":
        self.asked.append(after)
        return ScriptedStream(self, self.streams[len(self.asked) - 1])


@dataclass
class ScriptedStream:
    script: Script
    batches: list[Batch | SlipwayError]

    async def read(self) -> Batch | None:
        if not self.batches:
            return None
        batch = self.batches.pop(0)
        if isinstance(batch, SlipwayError):
            raise batch
        return batch

    def close(self) -> None:
        self.script.closed += 1


def changed(name: str) -> DownloadEvent:
    return DownloadEvent(download=Download(name=name, uid=name))


def at(revision: int) -> Cursor:
    return Cursor(epoch="e", revision=revision)


async def events_of(
    script: Script, backoff: Backoff | None = None, after: Cursor | None = None
) -> list[DownloadsEvent]:
    backoff = backoff or Sleeper().backoff()
    watch = Watch(script.open, DOWNLOADS, after=after, until_done=True, backoff=backoff)
    return [event async for event in watch]


async def test_state_then_live_then_end() -> None:
    script = Script(
        [
            [
                Batch(events=[changed("a")]),
                Batch(events=[changed("b")], cursor=at(7), synced=True),
                Batch(cursor=at(8)),
                Batch(events=[changed("a")], cursor=at(9)),
            ]
        ]
    )
    assert await events_of(script) == [
        Changed(Download(name="a", uid="a")),
        Changed(Download(name="b", uid="b")),
        Synced(at(7)),
        Changed(Download(name="a", uid="a")),
    ]
    assert script.asked == [None]
    assert script.closed == 1


async def test_resumes_behind_the_last_cursor() -> None:
    script = Script(
        [
            [Batch(cursor=at(1), synced=True), Batch(events=[changed("a")], cursor=at(2)), LOST],
            [Batch(events=[changed("b")], cursor=at(3), synced=True)],
        ]
    )
    names = [event.resource.name for event in await events_of(script) if isinstance(event, Changed)]
    assert names == ["a", "b"]
    assert script.asked == [None, at(2)]


async def test_a_state_that_breaks_off_is_never_seen() -> None:
    script = Script(
        [
            [Batch(events=[changed("a"), changed("b")]), LOST],
            [Batch(events=[changed("a")], cursor=at(5), synced=True)],
        ]
    )
    assert await events_of(script) == [Changed(Download(name="a", uid="a")), Synced(at(5))]
    assert script.asked == [None, None]


async def test_a_replay_that_breaks_off_is_not_seen_twice() -> None:
    script = Script(
        [
            [Batch(events=[changed("a")]), LOST],
            [Batch(events=[changed("a"), changed("b")], cursor=at(5), synced=True)],
        ]
    )
    events = await events_of(script, after=at(3))
    assert [event.resource.name for event in events if isinstance(event, Changed)] == ["a", "b"]
    assert script.asked == [at(3), at(3)]


async def test_reset_in_a_live_stream_keeps_the_mirror_whole() -> None:
    script = Script(
        [
            [
                Batch(events=[changed("old")], cursor=at(1), synced=True),
                Batch(events=[changed("new")], reset=True),
                Batch(events=[changed("newer")], cursor=at(9), synced=True),
            ]
        ]
    )
    watch = Watch(script.open, DOWNLOADS, until_done=True)
    seen = [(type(event), set(watch.mirror.resources)) async for event in watch]
    assert seen == [
        (Changed, {"old"}),
        (Synced, {"old"}),
        (Reset, {"old"}),
        (Changed, {"old"}),
        (Changed, {"old"}),
        (Synced, {"new", "newer"}),
    ]


async def test_an_end_that_nobody_asked_for_is_a_lost_stream() -> None:
    script = Script([[Batch(cursor=at(1), synced=True)], [failed(grpc.StatusCode.PERMISSION_DENIED)]])
    watch = Watch(script.open, DOWNLOADS, backoff=Sleeper().backoff())
    assert isinstance(await anext(watch), Synced)
    with pytest.raises(SlipwayError, match="PERMISSION_DENIED"):
        await anext(watch)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    assert script.asked == [None, at(1)]


async def test_waits_grow_with_full_jitter_until_a_stream_is_synced() -> None:
    sleeper = Sleeper()
    busy = failed(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=3.0)
    script = Script([[LOST], [LOST], [LOST], [LOST], [LOST], [Batch(cursor=at(1), synced=True), busy], []])
    await events_of(script, sleeper.backoff(draw=0.5))
    assert sleeper.slept == [0.5, 1.0, 2.0, 4.0, 4.0, 3.5]


async def test_disconnects_are_told_and_may_end_the_watch() -> None:
    told: list[tuple[str, float]] = []

    def tell(error: SlipwayError, delay: float) -> None:
        told.append((error.reason, delay))
        if len(told) == 2:
            raise error

    script = Script([[LOST], [LOST]])
    watch = Watch(script.open, DOWNLOADS, backoff=Sleeper().backoff(), on_disconnect=tell)
    with pytest.raises(Unavailable):
        await anext(watch)
    assert told == [("UNAVAILABLE", 1.0), ("UNAVAILABLE", 2.0)]


async def test_silence_is_a_lost_stream() -> None:
    class Silent:
        closed = False

        async def read(self) -> Batch | None:
            await anyio.sleep_forever()
            return None

        def close(self) -> None:
            self.closed = True

    silent = Silent()
    streams: Iterator[Silent | ScriptedStream] = iter([silent, Script([[]]).open(None)])
    watch = Watch(lambda _: next(streams), DOWNLOADS, until_done=True, silence=0.01, backoff=Sleeper().backoff())
    assert [event async for event in watch] == []
    assert silent.closed


async def test_events_of_a_newer_server_are_passed_over() -> None:
    script = Script([[Batch(events=[DownloadEvent(), changed("a")], cursor=at(1), synced=True)]])
    assert await events_of(script) == [Changed(Download(name="a", uid="a")), Synced(at(1))]


@pytest.mark.parametrize(
    ("error", "resumable"),
    [
        (failed(grpc.StatusCode.UNAVAILABLE), True),
        (failed(grpc.StatusCode.UNAVAILABLE, "DRAINING"), True),
        (failed(grpc.StatusCode.CANCELLED), True),
        (failed(grpc.StatusCode.INTERNAL), True),
        (failed(grpc.StatusCode.UNKNOWN), True),
        (failed(grpc.StatusCode.INTERNAL, "INTERNAL"), False),
        (failed(grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"), False),
        (failed(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS"), False),
        (failed(grpc.StatusCode.PERMISSION_DENIED), False),
        (failed(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE"), False),
    ],
)
def test_what_is_resumed(error: SlipwayError, resumable: bool) -> None:
    assert is_resumable(error) is resumable


NAMES = ("downloads/a", "downloads/b", "downloads/c")
Step = Callable[[WatchedLog], None]

steps = st.one_of(
    st.sampled_from(NAMES).map(lambda name: ("change", name)),
    st.sampled_from(NAMES).map(lambda name: ("delete", name)),
    st.sampled_from(NAMES).map(lambda name: ("progress", name)),
    st.sampled_from([("compact", ""), ("restart", ""), ("lose", ""), ("lose", ""), ("lose", "")]),
)


@dataclass
class World:
    """A log, and what happens to it: some of the script before each read of any stream."""

    script: list[list[tuple[str, str]]]
    batch_size: int
    log: WatchedLog = field(default_factory=WatchedLog)
    done: int = 0

    def open(self, after: Cursor | None) -> "WorldStream":
        return WorldStream(self, self.log.initial(after, self.batch_size), self.log.epoch)

    def go_on(self) -> bool:
        """Lets the next steps happen; says whether the stream survives them."""
        survives = True
        for action, name in self.script.pop(0) if self.script else []:
            self.done += 1
            match action:
                case "change":
                    self.log.change(name)
                case "delete":
                    self.log.delete(name)
                case "progress":
                    self.log.progress(name, self.done)
                case "compact":
                    self.log.compact()
                case "restart":
                    self.log.restart()
                    survives = False
                case "lose":
                    survives = False
        return survives


@dataclass
class WorldStream:
    world: World
    initial: Iterable[Batch]
    epoch: int
    cursor: Cursor | None = None
    told_all: bool = False

    def __post_init__(self) -> None:
        # What a server sends first is the log as it was when it began; what happens meanwhile comes behind it.
        self.initial = iter(list(self.initial))

    async def read(self) -> Batch | None:
        batch = next(iter(self.initial), None)
        over = not self.world.script
        if not self.world.go_on():
            raise LOST
        if batch is None:
            if self.told_all:
                return None
            assert self.cursor is not None
            batch = self.world.log.live(self.cursor)
            self.told_all = over
        if batch.HasField("cursor"):
            self.cursor = batch.cursor
        return batch

    def close(self) -> None:
        pass


async def watch_and_check(world: World) -> None:
    """Holds every event against the log's whole history."""
    watch = Watch(world.open, DOWNLOADS, until_done=True, backoff=Sleeper().backoff())
    position: Cursor | None = None
    async for event in watch:
        match event:
            case Reset():
                position = None
            case Synced(cursor):
                assert position is None or position == cursor, "a replay has left something out"
                position = cursor
            case Changed() | Removed() if position is not None:
                happened = world.log.history[int(position.epoch)][position.revision]
                assert event == DOWNLOADS.event(happened), "a transition was missed, repeated or out of order"
                position = Cursor(epoch=position.epoch, revision=position.revision + 1)
            case _:
                pass
    assert watch.mirror.resources == world.log.state


@settings(max_examples=400)
@given(script=st.lists(st.lists(steps, max_size=5), max_size=25), batch_size=st.integers(1, 3))
def test_no_transition_is_missed_or_repeated(script: list[list[tuple[str, str]]], batch_size: int) -> None:
    asyncio.run(watch_and_check(World(script, batch_size)))


def test_progress_reaches_the_mirror_and_ends_with_the_next_transition() -> None:
    log = WatchedLog()
    log.change("downloads/a")
    log.progress("downloads/a", 5)
    [batch] = log.initial(None, 10)
    assert batch.events[0].download.progress.done_bytes == 5
    update = log.all_progress()[0].progress
    assert DOWNLOADS.event(log.all_progress()[0]) == Progressed(update)
    log.change("downloads/a")
    assert log.all_progress() == []
