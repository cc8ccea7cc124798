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
    """How watches fare, for all event logs of a process: once for each registry of metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._watchers = Gauge("slipway_watchers", "Open watches.", ["log"], registry=registry)
        self._lag = Histogram(
            "slipway_watch_lag_revisions",
            "Transitions that a watcher was behind when a batch was taken for it.",
            ["log"],
            buckets=_LAG,
            registry=registry,
        )
        self._events = Histogram(
            "slipway_watch_events_per_write", "Events in one batch.", ["log"], buckets=_EVENTS, registry=registry
        )
        self._resets = Counter(
            "slipway_watch_resets_total",
            "Watches that had to begin with the state although they named a cursor, or fell out of the log.",
            ["log"],
            registry=registry,
        )

    def of(self, log: str) -> "LogMetrics":
        """Those of one log, told from others by this name (`models`)."""
        return LogMetrics(
            self._watchers.labels(log), self._lag.labels(log), self._events.labels(log), self._resets.labels(log)
        )


class LogMetrics:
    """How the watches of one event log fare."""

    def __init__(self, watchers: Gauge, lag: Histogram, events: Histogram, resets: Counter) -> None:
        self._watchers = watchers
        self._lag = lag
        self._events = events
        self._resets = resets

    @classmethod
    def unregistered(cls) -> "LogMetrics":
        """Metrics that nobody scrapes."""
        return WatchMetrics(CollectorRegistry()).of("")

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
