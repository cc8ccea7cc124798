"""The watch of the client against the log and broadcast of the services, over real sockets that break all the time."""

import random
from dataclasses import dataclass, field
from typing import Any

import anyio
import grpc
import pytest
from slipway.common.v1.watch_pb2 import Deleted
from slipway.registry.v1 import download_service_pb2
from slipway.registry.v1.download_pb2 import Download, DownloadEvent, DownloadProgressUpdate, DownloadState
from slipway_client import Backoff, Changed, Registry, Removed, Reset, Synced
from slipway_client.downloads import DOWNLOADS
from slipway_client.errors import SlipwayError
from slipway_service import wire
from slipway_service.broadcast import Broadcast
from slipway_service.eventlog import Bounds, EventLog
from slipway_service.fault import Fault, Reason
from slipway_service.rpc_errors import to_status
from slipway_service.watch_rpc import parse_watch
from slipway_service.watcher import Pace

from tests.integration.client.fakes import Context

pytestmark = pytest.mark.anyio

SERVICE = download_service_pb2.DESCRIPTOR.services_by_name["DownloadService"]
NAMES = [f"downloads/{letter}" for letter in "abcdef"]
BREAKS = 6  # of streams, at least
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass
class ShakyRegistry:
    """A log of downloads, served by streams that end after a few batches until `steady` is set."""

    rng: random.Random
    history: list[DownloadEvent] = field(default_factory=list)
    state: dict[str, Download] = field(default_factory=dict)
    steady: bool = False
    opened: int = 0
    log: EventLog = field(default_factory=lambda: EventLog("epoch", bounds=Bounds(entries=40)))

    def __post_init__(self) -> None:
        self.broadcast = Broadcast(self.log, pace=Pace(batch_events=4))

    async def watch(self, request: download_service_pb2.WatchDownloadsRequest, context: Context) -> None:
        self.opened += 1
        subscription = self.broadcast.subscribe(parse_watch(request, collection="downloads"))
        left = self.rng.randint(0, 4)
        while self.steady or left:
            left -= 1
            batch = await subscription.receive()
            if batch is None:
                return
            await context.write(wire.batch(batch))
        if self.rng.random() < 0.5:
            status = to_status(Fault(Reason.DRAINING, "going away", retry_after=0.001))
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, status.message, (("grpc-status-details-bin", status.SerializeToString()),)
            )
        await context.abort(self.rng.choice(AWAY), "going away")

    def step(self) -> None:
        """Something happens to one of the downloads."""
        name = self.rng.choice(NAMES)
        known = self.state.get(name)
        if known is not None and self.rng.random() < 0.2:
            del self.state[name]
            event = DownloadEvent(deleted=Deleted(name=name, uid=known.uid))
            self.log.delete(name, wire.event_field(event))
            self.history.append(event)
        elif known is not None and self.rng.random() < 0.5:
            known.progress.done_bytes += 1
            update = DownloadProgressUpdate(name=name, uid=known.uid, progress=known.progress)
            self.log.progress(name, wire.event_field(DownloadEvent(progress=update)))
        else:
            changed = Download(name=name, uid=known.uid if known else f"{name} {len(self.history)}")
            changed.etag = str(len(self.history) + 1)
            changed.state = DownloadState.DOWNLOAD_STATE_RUNNING
            self.state[name] = changed
            event = DownloadEvent(download=changed)
            self.log.append(name, wire.event_field(event))
            self.history.append(event)


@pytest.mark.parametrize("seed", range(6))
async def test_no_transition_is_missed_or_repeated_while_streams_break(seed: int) -> None:
    registry = ShakyRegistry(random.Random(seed))
    parse = download_service_pb2.WatchDownloadsRequest.FromString
    behaviour: Any = registry.watch
    handler: Any = grpc.unary_stream_rpc_method_handler(behaviour, parse, None)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE.full_name, {"WatchDownloads": handler})]
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    lost: list[SlipwayError] = []
    backoff = Backoff(first=0.002, longest=0.004)
    async with Registry.connect(address, backoff=backoff) as client, anyio.create_task_group() as tasks:

        async def live() -> None:
            steps = 0
            while steps < 300 or registry.opened <= BREAKS:
                registry.step()
                steps += 1
                await anyio.sleep(0.001 * registry.rng.random())  # the pace of the world, nothing waits for it
            registry.steady = True
            registry.step()  # so that there is something left to be seen

        tasks.start_soon(live)
        watch = client.watch_downloads(min_progress_interval=0.05, on_disconnect=lambda error, _: lost.append(error))
        seen: int | None = None
        async with watch:
            async for event in watch:
                match event:
                    case Reset():
                        seen = None
                    case Synced(cursor):
                        assert seen in (None, cursor.revision), "a replay has left something out"
                        seen = cursor.revision
                    case Changed() | Removed() if seen is not None:
                        assert event == DOWNLOADS.event(registry.history[seen]), "missed, repeated or out of order"
                        seen += 1
                    case _:
                        pass
                if registry.steady and seen == len(registry.history) and watch.mirror.resources == registry.state:
                    break
    await server.stop(None)
    assert len(lost) == registry.opened - 1 >= BREAKS
