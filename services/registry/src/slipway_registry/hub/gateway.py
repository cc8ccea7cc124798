"""The one way to the Hub's API: bounded, patient, shared, and shut when offline."""

import itertools
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog
from slipway_service.fault import Fault, Reason

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import HubFailure, Subject, Unclear, Unreachable, fault_of
from slipway_registry.hub.rate import RateBudget
from slipway_registry.hub.session import HubSession, install_client
from slipway_registry.hub.settings import HubSettings
from slipway_registry.hub.sharing import SharedAnswers

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class HubGateway:
    """Makes calls to the Hub in worker threads.

    Args:
        settings: where the Hub is, and how patient to be.
        budget: what the Hub lets us ask; give one to share it with the transfer of files.
        sleep, clock, jitter: waiting, time and chance, so that tests need none of them.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        budget: RateBudget | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.settings = settings
        self.budget = budget or RateBudget(clock)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._answers = SharedAnswers(clock, settings.cache_entries)
        self._threads = anyio.CapacityLimiter(settings.concurrency)
        self._away_until = clock()
        install_client()

    async def call(self, credential: Credential, subject: Subject, work: Callable[[HubSession], T]) -> T:
        """Do `work` in a thread, again while it fails for a passing reason and waiting is within patience.

        Raises:
            Fault: one of the Hub's reasons (`errors.fault_of`), or OFFLINE.
        """
        if self.settings.offline:
            raise offline_fault(self.settings.offline, subject)
        for attempt in itertools.count(1):
            try:
                answer = await self._once(credential, work)
            except HubFailure as failure:
                pause = self._pause(failure, attempt)
                if pause is None:
                    if isinstance(failure, Unreachable):
                        self._away_until = self._clock() + self.settings.away_memory
                    raise fault_of(failure, subject, credential, self.settings.endpoint) from failure
            else:
                self._away_until = self._clock()
                return answer
            await self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, failure: HubFailure, attempt: int) -> float | None:
        """Seconds to the next attempt; None where there is to be none."""
        if not failure.passing or attempt >= self.settings.tries:
            return None
        if isinstance(failure, Unreachable) and self._clock() < self._away_until:
            return None
        longest = self.settings.first_wait * 2 ** (attempt - 1)
        asked = failure.retry_after
        pause = self._jitter(longest / 2, longest) if asked is None else asked
        return pause if pause <= self.settings.patience else None

    async def shared(
        self, credential: Credential, key: Hashable, ask: Callable[[], Awaitable[T]], ttl: float | None = None
    ) -> T:
        """The answer of `ask()`, or one that this credential got under `key` within the last `ttl` seconds.

        Without a `ttl` it is `HubSettings.cache_ttl`.
        """
        seconds = self.settings.cache_ttl if ttl is None else ttl
        return await self._answers.get((credential.kind, credential.key, key), seconds, ask)

    async def _once(self, credential: Credential, work: Callable[[HubSession], T]) -> T:
        try:
            with anyio.fail_after(self.settings.call_timeout):
                # Abandoned when the caller is cancelled: the thread ends by itself within its own timeouts.
                return await anyio.to_thread.run_sync(
                    partial(self._work, credential, work), abandon_on_cancel=True, limiter=self._threads
                )
        except TimeoutError as error:
            raise Unreachable(f"no whole answer in {self.settings.call_timeout:g} s") from error

    def _work(self, credential: Credential, work: Callable[[HubSession], T]) -> T:
        session = HubSession(self.settings, credential, self.budget)
        with session.active():
            try:
                return work(session)
            except (HubFailure, Fault):
                raise
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # huggingface_hub builds its objects from whatever JSON there is.
                _log.warning("hub_answer_unclear", exc_info=error)
                raise Unclear(f"an answer without what it must have ({type(error).__name__})") from error


def offline_fault(because: str, subject: Subject, lack: str = "the cache does not hold the answer") -> Fault:
    """What is said instead of asking the Hub."""
    text = f"Offline mode is on ({because}), so the Hub is not asked, and {lack}."
    return Fault(Reason.OFFLINE, text, facts=subject.facts)
