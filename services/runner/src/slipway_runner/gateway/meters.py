"""The gateway's metrics. The runner shows them among its own; see `scrape`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""From an embedding to a long answer."""

CLIENT_GONE = 499
"""The status under which requests count whose client went away; nginx's number for it."""

BROKEN_OFF = 502
"""The status under which requests count whose backend broke off, also in the middle of an answer."""


class Meters:
    """What is counted. `model` is the id, empty for requests that were for none."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="slipway_gateway", registry=self.registry)
        self._requests = Counter(
            "slipway_gateway_requests",
            "Requests by how they ended; 499: the client went away, 502: the backend broke off, perhaps in its answer.",
            ["model", "path", "code"],
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "slipway_gateway_in_flight", "Requests that a model is answering.", ["model"], registry=self.registry
        )
        self._first_byte = Histogram(
            "slipway_gateway_first_byte_seconds",
            "From a request's arrival to the first byte of the backend's answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._whole = Histogram(
            "slipway_gateway_request_seconds",
            "From a request's arrival to the end of its answer, where a backend gave one.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def began(self, model: str) -> None:
        """A request was sent to a model."""
        self._in_flight.labels(model).inc()

    def first_byte(self, model: str, seconds: float) -> None:
        """Its answer has begun."""
        self._first_byte.labels(model).observe(seconds)

    def ended(self, model: str, seconds: float) -> None:
        """Nothing of it is under way any more."""
        self._in_flight.labels(model).dec()
        self._whole.labels(model).observe(seconds)

    def count(self, model: str, path: str, code: int) -> None:
        """How a request ended."""
        self._requests.labels(model, path, str(code)).inc()
