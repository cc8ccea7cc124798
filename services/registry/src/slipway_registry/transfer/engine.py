"""One blob from the Hub to the disk: space, bytes, hash. Knows nothing of jobs, caches or callers."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway_registry.transfer.errors import Mismatch
from slipway_registry.transfer.halt import Halt, Halted
from slipway_registry.transfer.hashing import OneCore, follow
from slipway_registry.transfer.partial import Partial
from slipway_registry.transfer.parts import Counters

# A way to fill a partial (http, xet, another file). Raises what `transfer.errors` lists.
Fetch = Callable[[Partial, Halt, Counters], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What is to be there in the end: `size` bytes whose hash is `etag` (64 digits sha256, 40 git's sha1)."""

    etag: str
    size: int
    label: str  # a path in a repository, for messages


class Transfer:
    """Fetches one blob into `directory`; its figures may be read by anyone while `run` runs in a thread.

    Args:
        mode: permission bits of the finished file.
        fetched: called (in the thread) when all bytes are there and only hashing and syncing remain.
    """

    def __init__(
        self,
        blob: Blob,
        directory: Path,
        fetch: Fetch,
        *,
        core: OneCore,
        mode: int,
        fetched: Callable[[], None] = lambda: None,
        boot: uuid.UUID | None = None,
    ) -> None:
        self.blob = blob
        self.counters = Counters()
        self.resumed = 0  # bytes that an earlier run had left
        self.crcs = b""  # of the finished blob, see Frontier.crcs
        self._directory = directory
        self._fetch = fetch
        self._core = core
        self._mode = mode
        self._fetched = fetched
        self._boot = boot
        self._partial: Partial | None = None

    @property
    def done(self) -> int:
        """Bytes of the blob that are there, 0 before the partial is open."""
        return self._partial.frontier.done if self._partial else 0

    def run(self, halt: Halt) -> None:
        """Return when `directory/data` is whole, has its hash, its mode, and is on the disk.

        Raises:
            Mismatch: the hash is wrong; the blocks at fault (else all) have been given up for another run.
            Setback, Away, Vanished, DiskFull, Fault, Halted: see `transfer.errors`.
        """
        with Partial.open(self._directory, self.blob.size, boot=self._boot) as partial:
            self._partial = partial
            self.resumed = partial.frontier.done
            digest = self._fetch_and_hash(partial, halt)
            if digest != self.blob.etag:
                _give_up_damage(partial)
                raise Mismatch(self.blob.label, self.blob.etag, digest)
            partial.check_present()
            partial.sync(self._mode)
            self.crcs = partial.frontier.crcs()

    def _fetch_and_hash(self, partial: Partial, halt: Halt) -> str:
        beside, fetching = Halt(), Halt()
        digests: list[str] = []
        with (
            halt.waking(beside.set),
            halt.waking(fetching.set),
            _running(beside, lambda: digests.append(follow(partial, self.blob.etag, self._core, beside)), fetching.set),
        ):
            self._fetch(partial, fetching, self.counters)
            self._fetched()
        halt.check()
        return digests[0]


@contextmanager
def _running(halt: Halt, body: Callable[[], None], broken: Callable[[], None]) -> Iterator[None]:
    """Run the body in a thread beside this one, and wait for it; `halt` ends it when this one fails.

    When the body fails, `broken` is called and is to end this one by Halted; what the body raised is raised then.
    """
    errors: list[Exception] = []

    def guard() -> None:
        try:
            body()
        except Halted:
            pass
        except Exception as error:  # raised below, in the thread that waits
            errors.append(error)
            broken()

    thread = threading.Thread(target=guard, daemon=True)
    thread.start()
    try:
        yield
    except Halted:
        halt.set()
        thread.join()
        if not errors:
            raise
    except BaseException:
        halt.set()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _give_up_damage(partial: Partial) -> None:
    """What the disk changed shows by its crc; what came wrong over the network cannot be told apart: all of it goes."""
    damaged = partial.frontier.damaged(partial.read)
    partial.frontier.forget(damaged or None)
