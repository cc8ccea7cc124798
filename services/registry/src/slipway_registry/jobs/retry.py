"""When to try again, as values: nothing here waits, and chance is passed in."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter, in seconds: `base`, twice that … up to `cap`, each times 0.5 to 1.

    `tries` repetitions, then None.
    """

    base: float
    cap: float
    tries: int
    chance: Callable[[], float]  # 0 to 1, `random.random`

    def __call__(self, tries: int) -> float | None:
        """Seconds before repetition number `tries` (from 1); None when there have been enough."""
        if tries > self.tries:
            return None
        return min(self.cap, self.base * 2.0 ** (tries - 1)) * (1 + self.chance()) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What a download does about setbacks. Settings; seconds."""

    # Within one connection: together about 10 s, what a restart of a load balancer takes.
    part_base: float = 0.2
    part_cap: float = 8.0
    part_tries: int = 6
    # A server that asks for a longer wait than this is obeyed by the whole download, visibly, in BACKING_OFF.
    part_patience: float = 10.0
    # Whole download, faults other than an absent Hub, counted only while no byte arrives.
    job_delays: tuple[float, ...] = (1.0, 5.0, 30.0)
    # While the Hub is away: how often to look, and for how long.
    away_base: float = 2.0
    away_cap: float = 60.0
    away_patience: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a setback: fail (`delay` None), or wait, and then try again or, if `last`, fail."""

    delay: float | None
    tries: int
    last: bool = False


def after_setback(
    policy: RetryPolicy,
    *,
    away: bool,
    progressed: bool,
    tries: int,
    away_for: float,
    away_looks: int,
    retry_after: float | None,
    chance: Callable[[], float],
) -> Verdict:
    """Decide about a whole download.

    Args:
        away: the Hub is unreachable, fails or limits us.
        progressed: bytes arrived since the last start, which makes every count begin anew.
        tries: consumed so far.
        away_for: seconds that the Hub has been away.
        away_looks: starts since then.
        retry_after: seconds that the other side asked to wait.
    """
    asked = retry_after or 0.0
    if away:
        delay = min(policy.away_cap, policy.away_base * 2 ** min(away_looks, 16)) * (1 + chance()) / 2
        left = max(0.0, policy.away_patience - away_for)
        return Verdict(min(max(delay, asked), left), tries, last=max(delay, asked) >= left)
    tries = 1 if progressed else tries + 1
    if tries > len(policy.job_delays):
        return Verdict(None, tries)
    return Verdict(max(policy.job_delays[tries - 1], asked), tries)
