"""One piece of work per blob, for any number of downloads that need it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio import CancelScope, CapacityLimiter, Event, Lock, from_thread, to_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled
from slipway_service.fault import Fault, Reason

from slipway_registry.hub.credentials import Credential
from slipway_registry.jobs.obtain import Gauge, Need, Obtainer
from slipway_registry.transfer.halt import Halt, Halted

_REFUSED = {
    Reason.REPO_NOT_FOUND,
    Reason.REPO_GATED,
    Reason.CREDENTIAL_INVALID,
    Reason.SERVICE_CREDENTIAL_INVALID,
}


@dataclass(slots=True, eq=False)
class _Work:
    """A blob that is being obtained, with whose credential, and who waits for it."""

    credential: Callable[[], Credential]
    scope: CancelScope = field(default_factory=CancelScope)
    ended: Event = field(default_factory=Event)
    waiters: list["Waiter"] = field(default_factory=list)
    gauge: Gauge | None = None
    fetched: bool = False
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Waiter:
    """One download's interest in one blob. `gauge` is set while there is work; `on_fetched` runs in the event loop."""

    on_fetched: Callable[[], None]
    gauge: Gauge | None = None
    fetched: bool = False


class BlobBoard:
    """Runs in one event loop; the work is done in threads, at most `files` at a time."""

    def __init__(self, obtainer: Obtainer, tasks: TaskGroup, *, files: int) -> None:
        self._obtainer = obtainer
        self.tasks = tasks
        self._files = CapacityLimiter(files)
        self._works: dict[tuple[str, str], _Work] = {}
        self._etags: dict[str, tuple[Lock, int]] = {}

    async def ensure(self, need: Need, waiter: Waiter) -> None:
        """Return when the blob is verified and in place. Cancelled: the work ends with its last waiter.

        Raises:
            See `transfer.errors`; every waiter gets the same.
        """
        key = (need.repo, need.blob)
        while (work := self._works.get(key)) and work.scope.cancel_called:
            await work.ended.wait()
        if work is None:
            work = self._works[key] = _Work(need.credential)
            self.tasks.start_soon(self._run, key, need, work)
        work.waiters.append(waiter)
        waiter.gauge, waiter.fetched = work.gauge, work.fetched
        try:
            await work.ended.wait()
        finally:
            work.waiters.remove(waiter)
            if not work.waiters:
                work.scope.cancel()
        if work.error:
            if work.credential is not need.credential and _is_about_credentials(work.error):
                return await self.ensure(need, waiter)  # another download's token was refused, not this one's
            raise work.error
        return None

    async def _run(self, key: tuple[str, str], need: Need, work: _Work) -> None:
        try:
            with work.scope:
                async with self._one_repo_at_a_time(need.blob), self._files:
                    await self._obtain(need, work)
        except Exception as error:  # belongs to the waiters
            work.error = error
        finally:
            if self._works.get(key) is work:
                del self._works[key]
            work.ended.set()

    async def _obtain(self, need: Need, work: _Work) -> None:
        def watch(gauge: Gauge) -> None:
            work.gauge = gauge
            for waiter in list(work.waiters):
                waiter.gauge = gauge

        def fetched() -> None:
            work.fetched = True
            for waiter in list(work.waiters):
                waiter.fetched = True
                waiter.on_fetched()

        halt = Halt()
        await in_thread(
            partial(
                self._obtainer.obtain,
                need,
                halt,
                lambda gauge: from_thread.run_sync(watch, gauge),
                lambda: from_thread.run_sync(fetched),
            ),
            halt,
        )

    @asynccontextmanager
    async def _one_repo_at_a_time(self, etag: str) -> AsyncIterator[None]:
        """The same blob for two repositories: fetched for the first, linked by the second."""
        lock, users = self._etags.get(etag, (Lock(), 0))
        self._etags[etag] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._etags.pop(etag)
            if users > 1:
                self._etags[etag] = (lock, users - 1)


def _is_about_credentials(error: Exception) -> bool:
    return isinstance(error, Fault) and error.reason in _REFUSED


async def in_thread(work: Callable[[], None], halt: Halt) -> None:
    """Run blocking work in a thread; cancelled, tell its halt and wait for it to end."""

    async def halt_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            halt.set()

    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(halt_when_cancelled)
        try:
            await to_thread.run_sync(work, limiter=CapacityLimiter(1))
        except Exception as caught:
            error = caught
        tasks.cancel_scope.cancel()
    if isinstance(error, Halted):
        await checkpoint_if_cancelled()  # its caller was cancelled, and that is what it gets
    if error:
        raise error
