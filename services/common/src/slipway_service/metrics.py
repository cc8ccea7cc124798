"""The metrics that both services have. Each service adds its own to the same registry."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

_LAG = (0, 1, 2, 5, 10, 25, 50, 100, 250, 1000, 2500, 10_000)
"""Revisions: one is a watcher that keeps up, the last is the event log's bound."""

_EVENTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Events in a write: 0 is a bookmark, 256 a full batch."""


def new_registry() -> CollectorRegistry:
    """A registry with what every process reports: memory, descriptors, CPU, garbage collection, Python version."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class WatchMetrics:
    """How watches fare. `log` tells one event log of the process from another."""

    def __init__(self, registry: CollectorRegistry, *, log: str) -> None:
        self._watchers = Gauge("slipway_watchers", "Open watches.", ["log"], registry=registry).labels(log)
        self._lag = Histogram(
            "slipway_watch_lag_revisions",
            "Transitions that a watcher was behind when a batch was taken for it.",
            ["log"],
            buckets=_LAG,
            registry=registry,
        ).labels(log)
        self._events = Histogram(
            "slipway_watch_events_per_write", "Events in one batch.", ["log"], buckets=_EVENTS, registry=registry
        ).labels(log)
        self._resets = Counter(
            "slipway_watch_resets_total",
            "Watches that had to begin with the state although they named a cursor, or fell out of the log.",
            ["log"],
            registry=registry,
        ).labels(log)

    @classmethod
    def unregistered(cls) -> "WatchMetrics":
        """Metrics that nobody scrapes."""
        return cls(CollectorRegistry(), log="")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watch while it is open."""
        self._watchers.inc()
        try:
            yield
        finally:
            self._watchers.dec()

    def wrote(self, *, lag: int, events: int, reset: bool) -> None:
        """Count a batch."""
        self._lag.observe(lag)
        self._events.observe(events)
        if reset:
            self._resets.inc()
