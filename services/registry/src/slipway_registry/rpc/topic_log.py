"""The event log of a topic, in memory for watchers and in the journal for those that come back after a restart."""

from collections.abc import Callable

import structlog
from anyio import CancelScope, Lock, to_thread
from slipway_service.eventlog import Entry, EventLog
from slipway_service.fault import Fault

from slipway_registry.cache.journal import Event, Journal, Past, Recorded

log = structlog.get_logger(__name__)


class TopicLog:
    """Events are taken at once, and stored and shown by `settle`, in their order.

    Args:
        past: what the journal holds.
        entry: makes an entry of what was recorded.
    """

    def __init__(self, journal: Journal, past: Past, entry: Callable[[Recorded], Entry]) -> None:
        self.log = EventLog(
            journal.epoch, revision=past.revision, state=map(entry, past.latest), entries=[*map(entry, past.events)]
        )
        self._journal = journal
        self._entry = entry
        self._unwritten: list[Event] = []
        self._writing = Lock()

    def add(self, event: Event) -> None:
        """Take an event; watchers see it once it is stored."""
        self._unwritten.append(event)

    async def settle(self) -> None:
        """Store and show what was taken. While the database cannot be written it waits for the next call."""
        with CancelScope(shield=True):
            async with self._writing:
                if not (taken := self._unwritten.copy()):
                    return
                try:
                    recorded = await to_thread.run_sync(self._journal.append, taken)
                except Fault as fault:
                    log.warning("events cannot be stored yet", waiting=len(taken), error=str(fault))
                    return
                del self._unwritten[: len(taken)]
                for it in recorded:
                    self.log.apply(self._entry(it))
