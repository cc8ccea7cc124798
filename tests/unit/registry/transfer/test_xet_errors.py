"""What hf-xet says when something goes wrong, as release 1.8 says it, and what it means."""

import pytest
from slipway_registry.transfer.errors import Away, DiskFull, Setback
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.xet import xet_errors
from slipway_service.fault import Reason

URL = "https://cas.example/x?token=secret"
CASES = [
    (
        ConnectionError("Server error: HTTP status server error (503 Service Unavailable), domain: x"),
        Away,
        Reason.HUB_ERROR,
    ),
    (ConnectionError("Rate limited: HTTP status client error (429 Too Many Requests)"), Away, Reason.HUB_RATE_LIMITED),
    (ConnectionError("Network error: error sending request for url (http://x)"), Away, Reason.HUB_UNREACHABLE),
    (ConnectionError("HTTP status client error (401 Unauthorized)"), Setback, Reason.TRANSFER_FAILED),
    (OSError("I/O error: error decoding response body"), Setback, Reason.TRANSFER_FAILED),
    (
        RuntimeError("Internal Writer Error: Data sender was dropped before sending data."),
        Setback,
        Reason.TRANSFER_FAILED,
    ),
]


@pytest.mark.parametrize(("error", "kind", "reason"), CASES)
def test_each_has_its_meaning(error: Exception, kind: type[Setback], reason: Reason) -> None:
    with pytest.raises(Setback) as caught, xet_errors(URL, Halt()):
        raise error
    assert type(caught.value) is kind
    assert caught.value.reason is reason
    assert "secret" not in caught.value.text


def test_an_aborted_stream_is_halted_whatever_it_says() -> None:
    halt = Halt()
    halt.set()
    with pytest.raises(Halted), xet_errors(URL, halt):
        raise RuntimeError("Internal error")


def test_ours_pass() -> None:
    with pytest.raises(DiskFull), xet_errors(URL, Halt()):
        raise DiskFull("full")
