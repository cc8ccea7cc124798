"""Fills a partial from a file that is here already, where it cannot be linked."""

from dataclasses import dataclass
from pathlib import Path

from slipway_registry.transfer.errors import Vanished, disk_errors
from slipway_registry.transfer.halt import Halt
from slipway_registry.transfer.handover import BUFFER_BYTES
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters


@dataclass(frozen=True, slots=True)
class CopyFetch:
    """Copies `source`, which has the size of the blob; the hash is checked like that of any other transfer."""

    source: Path

    def __call__(self, partial: Partial, halt: Halt, counters: Counters) -> None:  # noqa: ARG002 -- nothing is received
        """Return when every byte is there."""
        buffer = memoryview(bytearray(BUFFER_BYTES))
        with disk_errors(self.source), self.source.open("rb", buffering=0) as file:
            for start, end in partial.frontier.gaps():
                file.seek(start)
                while start < end:
                    halt.check()
                    count = file.readinto(buffer[: end - start])
                    if not count:
                        raise Vanished(f"{self.source} became shorter")
                    partial.write(start, buffer[:count])
                    start += count
