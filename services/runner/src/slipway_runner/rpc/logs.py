"""Backends' logs as text, from any offset, to the end or as it grows."""

import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from slipway_service.fault import Fault, Reason

from slipway_runner.models.fleet import Fleet
from slipway_runner.process.logfile import LogFile

TAIL_BYTES = 65_536
"""What is read when no offset is given: a screen or two, and the load of most models."""

POLL_SECONDS = 0.2
"""Between two looks at a log that is followed; a person sees no delay, and a look is one stat(2)."""


@dataclass(frozen=True, slots=True)
class LogText:
    """A piece of a log, its bytes from `offset` to `next_offset`."""

    offset: int
    text: str
    next_offset: int


class LogReader:
    """Reads the logs of a fleet's models."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def read(self, model_id: str, offset: int | None, *, follow: bool) -> AsyncIterator[LogText]:
        """The log from an offset on.

        Args:
            model_id: whose.
            offset: where to begin; negative counts from the end, None is the last TAIL_BYTES.
            follow: go on until the model of this uid is gone.

        Raises:
            Fault: MODEL_NOT_FOUND; LOG_OFFSET_INVALID, the offset lies behind the end.
        """
        uid = self._fleet.get(model_id).uid
        log = self._fleet.log(model_id)
        position = _start(log, offset)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while True:
            last = not (follow and self._lives(model_id, uid))
            while (piece := await anyio.to_thread.run_sync(log.read, position)).data:
                position = piece.next_offset
                yield LogText(piece.offset, decoder.decode(piece.data), position)
            if last:
                return
            await anyio.sleep(POLL_SECONDS)

    def _lives(self, model_id: str, uid: str) -> bool:
        return any(model.id == model_id and model.uid == uid for model in self._fleet.list())


def _start(log: LogFile, offset: int | None) -> int:
    size = log.size()
    if offset is None:
        offset = -TAIL_BYTES
    if offset > size:
        raise Fault(
            Reason.LOG_OFFSET_INVALID,
            f"the log ends at {size}; read from there, or from -{TAIL_BYTES} for its end",
            facts={"size": str(size)},
        )
    return offset if offset >= 0 else max(0, size + offset)
