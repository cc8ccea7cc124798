"""Backends' logs as text, from any offset, to the end or as it grows."""

import codecs
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import BinaryIO

import anyio
from slipway_service.broadcast import RETRY_AFTER_DRAIN
from slipway_service.fault import Fault, Reason

from slipway_runner.models.fleet import Fleet
from slipway_runner.process.logfile import READ_BYTES, read_piece

TAIL_BYTES = 65_536
"""What is read when no offset is given: a screen or two, and the load of most models."""

POLL_SECONDS = 0.2
"""Between two looks at a log that is followed; a person sees no delay, and a look is one stat(2)."""


@dataclass(frozen=True, slots=True)
class LogText:
    """A piece of a log, its bytes from `offset` to `next_offset`; cut between characters."""

    offset: int
    text: str
    next_offset: int


class LogReader:
    """Reads the logs of a fleet's models."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._draining = anyio.Event()

    def drain(self) -> None:
        """End the reading of every log that is followed, now and from now on."""
        self._draining.set()

    async def read(self, model_id: str, offset: int | None, *, follow: bool) -> AsyncGenerator[LogText]:
        """The log from an offset on.

        Args:
            model_id: whose.
            offset: where to begin; negative counts from the end, None is the last TAIL_BYTES.
            follow: go on until the model of this uid is gone, to the last byte that its backend wrote.

        Raises:
            Fault: MODEL_NOT_FOUND; LOG_OFFSET_INVALID, the offset lies behind the end; DISK_FAULT, it cannot be opened;
                DRAINING, it is followed and the server drains.
        """
        uid = self._fleet.get(model_id).uid
        with self._open(model_id) as log:  # before anything is awaited: the log goes when the model does
            position = _start(os.fstat(log.fileno()).st_size, offset)
            while True:
                pid = self._pid(model_id, uid)
                last = pid is None or not follow
                while (piece := await anyio.to_thread.run_sync(read_piece, log, position)).data:
                    complete = last and not pid and len(piece.data) < READ_BYTES
                    text, size = codecs.utf_8_decode(piece.data, "replace", complete)
                    if not size:
                        break  # a part of a character, whose rest may come yet
                    position = piece.offset + size
                    yield LogText(piece.offset, text, position)
                    self._check_draining(follow)
                if last:
                    return
                self._check_draining(follow)
                with anyio.move_on_after(POLL_SECONDS):
                    await self._draining.wait()

    def _open(self, model_id: str) -> BinaryIO:
        log = self._fleet.log(model_id)
        try:
            return log.open()
        except OSError as error:
            text = f"the log of {model_id}, {log.path}, cannot be opened: {error.strerror}"
            raise Fault(Reason.DISK_FAULT, text) from error

    def _pid(self, model_id: str, uid: str) -> int | None:
        """Of the model's backend, 0 when it has none; None when the model is gone."""
        return next((model.pid for model in self._fleet.list() if model.id == model_id and model.uid == uid), None)

    def _check_draining(self, follow: bool) -> None:
        if follow and self._draining.is_set():
            text = "The server is shutting down. Read on from the last offset."
            raise Fault(Reason.DRAINING, text, retry_after=RETRY_AFTER_DRAIN)


def _start(size: int, offset: int | None) -> int:
    if offset is None:
        offset = -TAIL_BYTES
    if offset > size:
        raise Fault(
            Reason.LOG_OFFSET_INVALID,
            f"the log ends at {size}; read from there, or from -{TAIL_BYTES} for its end",
            facts={"size": str(size)},
        )
    return offset if offset >= 0 else max(0, size + offset)
