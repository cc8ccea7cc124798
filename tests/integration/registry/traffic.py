"""What the CDN of an emulated Hub was asked for, and what it has sent."""

from tests.hub.journal import Journal


def sent(journal: Journal) -> int:
    """Bytes that it has sent, over all connections."""
    return sum(exchange.sent for exchange in journal.over(origin="cdn"))


def asked_for(journal: Journal, size: int) -> int:
    """Bytes of a file of this size that it was asked for, each counted once however often."""
    asked = bytearray(size)
    for exchange in journal.requests(origin="cdn"):
        first, last = exchange.byte_range or (0, None)
        end = size if last is None else last + 1
        asked[first:end] = b"\1" * (end - first)
    return asked.count(1)
