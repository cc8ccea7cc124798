"""Trying again, for as long as that brings something."""

from collections.abc import Callable
from dataclasses import dataclass

from slipway_registry.transfer.errors import Setback
from slipway_registry.transfer.halt import Halt


@dataclass(frozen=True, slots=True)
class Patience:
    """How one connection, or one stream, takes setbacks.

    Attributes:
        backoff: seconds to wait before repetition number n (from 1); None: give up. A try that brought bytes makes the
            count begin anew.
        longest: seconds; who asks for a longer wait than this is obeyed by the whole download instead.
    """

    backoff: Callable[[int], float | None]
    longest: float


def persist(attempt: Callable[[], None], progress: Callable[[], int], patience: Patience, halt: Halt) -> None:
    """Repeat an attempt that is set back; `progress` tells how far it all is.

    Raises:
        Setback: the last one, when tries are over or the wait would be too long.
        Halted.
    """
    tries = 0
    while True:
        before = progress()
        try:
            attempt()
        except Setback as setback:
            tries = 1 if progress() > before else tries + 1
            delay = patience.backoff(tries)
            asked = setback.retry_after or 0.0
            if delay is None or asked > patience.longest:
                raise
            halt.wait(max(delay, asked))
        else:
            return
