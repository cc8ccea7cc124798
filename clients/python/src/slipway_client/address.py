"""Where a service is: what people write, and the gRPC target it means."""

import ipaddress

GRPC_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract")
"""Schemes of gRPC's naming specification (doc/naming.md) that are passed on as they are written."""


def target(address: str) -> str:
    """The gRPC target of an address.

    `HOST:PORT` is resolved by DNS to every address it has; `IP:PORT,IP:PORT` names replicas one by one; `unix:///PATH`
    and the other schemes of gRPC's naming specification pass. IPv6 hosts stand in brackets.

    Raises:
        ValueError: it is none of these; the text says what is wrong with it.
    """
    address = address.strip()
    scheme, colon, rest = address.partition(":")
    if colon and rest and scheme in GRPC_SCHEMES and not rest.isdecimal():
        return address
    if "://" in address:
        raise ValueError(f"{address!r} is a URL; write HOST:PORT")
    parts = [_split(part.strip()) for part in address.split(",")]
    if len(parts) == 1:
        host, port = parts[0]
        return f"dns:///{host}:{port}"
    return _replicas(address, parts)


def _split(address: str) -> tuple[str, int]:
    """Host (IPv6 in its brackets) and port."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} has no host or no port; write HOST:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{address!r}: write an IPv6 host in brackets, [::1]:PORT")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{address!r}: the port is a number from 1 to 65535")
    return host, int(port)


def _replicas(address: str, parts: list[tuple[str, int]]) -> str:
    try:
        versions = {ipaddress.ip_address(host.strip("[]")).version for host, _ in parts}
    except ValueError:
        raise ValueError(f"{address!r}: several replicas are named by IP addresses, not by host names") from None
    if len(versions) != 1:
        raise ValueError(f"{address!r}: several replicas are all IPv4 or all IPv6")
    return f"ipv{versions.pop()}:" + ",".join(f"{host}:{port}" for host, port in parts)
