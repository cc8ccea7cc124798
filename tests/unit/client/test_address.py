"""What people write as an address."""

import pytest
from slipway_client.address import target


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", "dns:///127.0.0.1:50051"),
        ("registry.example:50051", "dns:///registry.example:50051"),
        (" localhost:1 ", "dns:///localhost:1"),
        ("dns:50051", "dns:///dns:50051"),
        ("[::1]:50051", "dns:///[::1]:50051"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("unix:///run/slipway.sock", "unix:///run/slipway.sock"),
        ("dns:///registry:50051", "dns:///registry:50051"),
    ],
)
def test_target(address: str, expected: str) -> None:
    assert target(address) == expected


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        (":50051", "HOST:PORT"),
        ("http://localhost:50051", "is a URL"),
        ("localhost:port", "1 to 65535"),
        ("localhost:0", "1 to 65535"),
        ("localhost:65536", "1 to 65535"),
        ("::1:50051", "brackets"),
        ("a.example:1,b.example:1", "IP addresses"),
        ("10.0.0.1:1,[::1]:1", "all IPv4 or all IPv6"),
        ("10.0.0.1:1,", "HOST:PORT"),
    ],
)
def test_not_an_address(address: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        target(address)
