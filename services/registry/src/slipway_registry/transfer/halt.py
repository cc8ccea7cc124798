"""Ends blocking work in threads at once: pause and cancel must not wait for a socket."""

import contextlib
import threading
from collections.abc import Callable, Iterator


class Halted(Exception):
    """The work was told to stop; what it has done so far stays."""


class Halt:
    """Told once, seen by every thread of a transfer.

    A thread that blocks in a system call registers what wakes it (`socket.shutdown`, `group.abort`); its own waits go
    through `wait`.
    """

    def __init__(self) -> None:
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._wakers: dict[object, Callable[[], object]] = {}  # by registration: several may name the same

    def set(self) -> None:
        """Stop everything that is registered. Safe from any thread, any number of times."""
        with self._lock:
            self._told.set()
            wakers = list(self._wakers.values())
        for wake in wakers:
            with contextlib.suppress(Exception):  # what is being woken may end by itself at this very moment
                wake()

    def check(self) -> None:
        """Raises Halted if told to stop."""
        if self._told.is_set():
            raise Halted

    def wait(self, seconds: float) -> None:
        """Let time pass; raises Halted as soon as told to stop."""
        if self._told.wait(seconds):
            raise Halted

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` if told to stop while the body runs."""
        registration = object()
        with self._lock:
            self.check()
            self._wakers[registration] = wake
        try:
            yield
        finally:
            with self._lock:
                del self._wakers[registration]
