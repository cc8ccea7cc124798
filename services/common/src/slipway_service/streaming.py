"""The context that streaming handlers write to, safe with clients that are gone and clients that do not read."""

from collections.abc import Callable
from typing import Any

import anyio
import grpc

from slipway_service.fault import Fault, Reason
from slipway_service.handlers import Context

STALL_LIMIT = 60.0
"""Seconds that one write may block. Longer, and the client is not slow but stuck; it resumes from its cursor."""

_CANCELLATION_IS_NEAR = 5.0
"""Seconds to wait for the cancellation of a call whose client is gone; on loopback it follows within milliseconds."""


class StreamContext:
    """A servicer context whose `write` does not log noise for clients that left, and does not wait for ever.

    Everything else is the wrapped context's.
    """

    def __init__(self, context: Context, *, sent: Callable[[], None], stall_limit: float = STALL_LIMIT) -> None:
        self._context = context
        self._sent = sent
        self._stall_limit = stall_limit
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Send one message.

        Raises:
            Fault: STREAM_STALLED, after the stall limit.
        """
        try:
            if not self._begun:
                # A status cannot follow initial metadata that are still being sent, cut short or not: it would carry
                # them again, and never arrive.
                with anyio.fail_after(self._stall_limit, shield=True):
                    await self._context.send_initial_metadata(())
                self._begun = True
            with anyio.fail_after(self._stall_limit):
                await self._context.write(message)
        except TimeoutError:
            text = f"Nothing was read from this stream for {self._stall_limit:g} s. Watch again from the last cursor."
            raise Fault(Reason.STREAM_STALLED, text, retry_after=1.0) from None
        except grpc.aio.InternalError:
            # The client is gone and core is about to cancel this task. An exception that left the handler before that
            # would be logged as a defect; whatever scopes the handler has open are best left by the cancellation.
            with anyio.move_on_after(_CANCELLATION_IS_NEAR):
                await anyio.sleep_forever()
            raise
        self._sent()
