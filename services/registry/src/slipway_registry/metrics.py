"""The registry's own metrics, beside those that both services have."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """What the cache's background work does, and how sound the cache is.

    Args:
        damaged: how many files are known to be damaged now; called at each scrape.
    """

    def __init__(self, registry: CollectorRegistry, damaged: Callable[[], int]) -> None:
        self._hashed = Counter(
            "slipway_scrub_bytes_total", "Bytes of the cache hashed again in the background.", registry=registry
        )
        self._damaged = Counter(
            "slipway_scrub_damaged_files_total",
            "Files that the background check found damaged or unreadable.",
            registry=registry,
        )
        now = Gauge("slipway_cache_damaged_files", "Files of snapshots whose last hash was wrong.", registry=registry)
        now.set_function(damaged)

    def hashed(self, count: int) -> None:
        """So many bytes."""
        self._hashed.inc(count)

    def damaged(self) -> None:
        """A file whose hash is wrong, or that cannot be read."""
        self._damaged.inc()
