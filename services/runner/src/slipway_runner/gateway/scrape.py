"""The gateway's metrics among the runner's, so that there is one place to scrape."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from slipway_runner.gateway import control

PATIENCE = 2.0
"""Seconds for the gateway's answer; scrapers give up after 10."""


class Scrape(Collector):
    """Asks the gateway whenever the runner is scraped, on the scraper's thread."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def describe(self) -> list[Metric]:
        """Nothing: what there is stands in the answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the gateway counts, and whether it is there."""
        try:
            text = _get(self._socket)
        except OSError:
            text = ""
        yield GaugeMetricFamily(
            "slipway_gateway_up", "Whether the gateway answers its runner.", value=float(bool(text))
        )
        yield from text_string_to_metric_families(text)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with control.reachable(self._path) as place:
            self.sock.connect(place)


def _get(path: Path) -> str:
    connection = _Connection(path)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
