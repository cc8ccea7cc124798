"""Addresses, durations and sizes."""

import pytest
from slipway_service.values import ListenAddress, parse_duration, parse_size, rounded_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, True),
        ("127.8.8.8:0", "127.8.8.8", 0, True),
        ("[::1]:1", "::1", 1, True),
        ("localhost:65535", "localhost", 65535, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:1", "::", 1, False),
        ("gpu-host.internal:1", "gpu-host.internal", 1, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = ListenAddress.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "50051", ":50051", "host", "host:", "host:x", "host:65536", "host:-1", "::1:50051", "[::1]"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        ListenAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("250ms", 0.25, "250ms"),
        ("30s", 30, "30s"),
        ("30", 30, "30s"),
        (1.5, 1.5, "1500ms"),
        ("90s", 90, "90s"),
        ("5m", 300, "5m"),
        ("24h", 86400, "1d"),
        ("0", 0, "0s"),
        ("0.1ms", 0.0001, "0.0001s"),
    ],
)
def test_durations(text: object, seconds: float, shown: str) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert show_duration(parse_duration(text)) == shown
    assert parse_duration(shown) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [("64MiB", 64 * 2**20, "64MiB"), ("1.5GB", 1_500_000_000, "1500000000B"), (4096, 4096, "4KiB"), ("0", 0, "0B")],
)
def test_sizes(text: object, size: int, shown: str) -> None:
    assert parse_size(text) == size
    assert show_size(size) == shown
    assert parse_size(shown) == size


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_950_000, "1.0 GB"),
        (999_949_999, "999.9 MB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert rounded_size(size) == shown


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 fortnight", "1mb", "5M", True, "1e3s"])
def test_what_is_neither(text: object) -> None:
    for parse in (parse_duration, parse_size):
        with pytest.raises(ValueError, match="is not like"):
            parse(text)
