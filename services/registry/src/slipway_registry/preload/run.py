"""Fills a cache with targets, side by side, and says how that ended."""

import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import anyio
from anyio import to_thread
from slipway_service.fault import Fault

from slipway_registry.cache.keeper import KeeperSettings
from slipway_registry.cache.pin import Pin
from slipway_registry.config import RegistrySettings
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repositories import Repositories
from slipway_registry.jobs.clock import SystemClock
from slipway_registry.jobs.retry import RetryPolicy
from slipway_registry.opening import Opened, keeper_of, opened
from slipway_registry.preload import exits, report
from slipway_registry.preload.fill import Filled, Filler
from slipway_registry.preload.following import Following
from slipway_registry.preload.report import Report
from slipway_registry.preload.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to do, beside the registry's own options; `patience` in seconds."""

    targets: Sequence[Target]
    keep: bool
    as_json: bool
    patience: float


async def until_signalled(work: Callable[[], Awaitable[int]]) -> int:
    """What the work ends with; or, after SIGINT or SIGTERM, 128 and the signal's number, as shells have it."""
    code = 0
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def obey() -> None:
                nonlocal code
                async for number in signals:
                    say("interrupted: what is there stays, and the next run goes on with it")
                    code = 128 + number
                    tasks.cancel_scope.cancel()

            tasks.start_soon(obey)
            code = await work()
            tasks.cancel_scope.cancel()
    return code


async def preload(settings: RegistrySettings, wish: Wish, environment: Mapping[str, str]) -> int:
    """Fill the cache; the exit code. Targets are filled side by side, and one that fails does not end the others.

    Raises:
        StartError: see `opened`.
    """
    lines = Report(say, time.monotonic)
    policy = replace(RetryPolicy(), away_patience=wish.patience)
    async with opened(settings, environment, listener=lambda _: Following(lines.download), policy=policy) as it:
        filler = await _filler(it, lines, wish)
        ended: list[Filled | Fault | None] = [None] * len(wish.targets)

        async def fill(number: int, target: Target) -> None:
            began = time.monotonic()
            try:
                filled = ended[number] = await filler.fill(target)
            except Fault as fault:
                ended[number] = fault
                lines.failed(target, fault)
            else:
                lines.filled(filled, time.monotonic() - began)

        async with anyio.create_task_group() as tasks:
            for number, target in enumerate(wish.targets):
                tasks.start_soon(fill, number, target)
    found = [it for it in ended if isinstance(it, Filled)]
    for line in map(report.json_line, found) if wish.as_json else report.table(found):
        print(line, flush=True)  # noqa: T201 - this is the command's output
    return next((exits.exit_code(it) for it in ended if isinstance(it, Fault)), 0)


async def _filler(it: Opened[Following], lines: Report, wish: Wish) -> Filler:
    keeper, _ = await to_thread.run_sync(keeper_of, it.engine, it.hub, KeeperSettings(), _NobodyToTell)
    repositories = Repositories(it.gateway, HubMetadata(it.gateway), keeper, it.hub)
    return Filler(
        it.engine,
        repositories,
        keeper,
        it.credentials,
        lines,
        SystemClock(),
        patience=wish.patience,
        keep=wish.keep,
    )


class _NobodyToTell:
    """The books' listener where nobody watches them."""

    def __init__(self, _store: object) -> None:
        pass

    def snapshot(self, change: object) -> None:
        pass

    def pin(self, pin: Pin, *, ended: bool = False) -> None:
        pass

    def begin(self, snapshots: object, pins: object) -> None:
        pass

    async def settle(self) -> None:
        pass


def say(line: str) -> None:
    """Write a line for people, beside the output."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
