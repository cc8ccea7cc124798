"""Whether new models are taken. Closed while the runner is drained, or shuts down."""

from slipway_service.fault import Fault, Reason

# Who drains a host works on it for minutes; a caller had better ask another one.
DRAINED_RETRY_SECONDS = 60.0


class Gate:
    """Open at first."""

    def __init__(self) -> None:
        self._why = ""
        self._retry_after = 0.0

    @property
    def closed(self) -> bool:
        """Whether nothing passes."""
        return bool(self._why)

    def close(self, why: str, *, retry_after: float) -> None:
        """Let nothing pass: `why` not, in words, and after how many seconds a caller may ask again."""
        self._why, self._retry_after = why, retry_after

    def open(self) -> None:
        """Let everything pass."""
        self._why = ""

    def check(self) -> None:
        """Raises Fault: DRAINING, while it is closed."""
        if self._why:
            raise Fault(Reason.DRAINING, self._why, retry_after=self._retry_after)
