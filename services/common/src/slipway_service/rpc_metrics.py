"""Metrics of calls, with the names and labels of go-grpc-middleware, so that published dashboards and alerts match.

Source: github.com/grpc-ecosystem/go-grpc-middleware, providers/prometheus/server_metrics.go.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry, Counter, Histogram

_LABELS = ("grpc_type", "grpc_service", "grpc_method")

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds; client_golang's default buckets, which the original uses."""


def go_name(code: grpc.StatusCode) -> str:
    """A status code as Go spells it: `OK`, `Canceled`, `DeadlineExceeded` …"""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"  # the one that differs by more than its case
    return "".join(word.capitalize() for word in code.name.split("_"))


@dataclass(frozen=True, slots=True)
class Method:
    """A method as its metrics are labelled; `kind` as in `handlers.kind`."""

    kind: str
    service: str
    name: str

    @classmethod
    def parse(cls, path: str, kind: str) -> "Method":
        """From the path of a call, `/package.Service/Method`."""
        service, _, name = path.removeprefix("/").rpartition("/")
        return cls(kind, service, name)


UNKNOWN_METHOD = Method("unknown", "unknown", "unknown")
"""All methods that no service has, together: a caller must not be able to create series."""


class RpcMetrics:
    """The counters and the latency histogram. Streams stay out of the histogram: their length says nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *more: str) -> Counter:
            return Counter(f"grpc_server_{name}", meaning, [*_LABELS, *more], registry=registry)

        self._started = counter("started_total", "Total number of RPCs started on the server.")
        self._handled = counter("handled_total", "Total number of RPCs completed on the server.", "grpc_code")
        self._received = counter("msg_received_total", "Total number of RPC stream messages received on the server.")
        self._sent = counter("msg_sent_total", "Total number of gRPC stream messages sent by the server.")
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Response latency (seconds) of unary gRPC handled by the server.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )

    def precreate(self, methods: Iterable[Method]) -> None:
        """Let every method be there at 0, with every code, so that a rate exists from the first event on."""
        for method in methods:
            labels = _labels(method)
            for metric in (self._started, self._received, self._sent):
                metric.labels(*labels)
            for code in grpc.StatusCode:
                self._handled.labels(*labels, go_name(code))
            if method.kind == "unary":
                self._seconds.labels(*labels)

    def started(self, method: Method) -> None:
        """A call began."""
        self._started.labels(*_labels(method)).inc()

    def received(self, method: Method) -> None:
        """A request message came in."""
        self._received.labels(*_labels(method)).inc()

    def sent(self, method: Method) -> None:
        """A response message went out."""
        self._sent.labels(*_labels(method)).inc()

    def handled(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        """A call ended."""
        labels = _labels(method)
        self._handled.labels(*labels, go_name(code)).inc()
        if method.kind == "unary":
            self._seconds.labels(*labels).observe(seconds)


def methods_of(services: Iterable[ServiceDescriptor]) -> list[Method]:
    """The methods of these protobuf service descriptors."""
    kinds = {(False, False): "unary", (True, False): "client_stream", (False, True): "server_stream"}
    return [
        Method(kinds.get((m.client_streaming, m.server_streaming), "bidi_stream"), service.full_name, m.name)
        for service in services
        for m in service.methods
    ]


def _labels(method: Method) -> tuple[str, str, str]:
    return method.kind, method.service, method.name
