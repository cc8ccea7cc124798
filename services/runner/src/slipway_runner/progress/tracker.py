"""Merges what backend, kernel and history say about one load into one fraction that never goes back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slipway_runner.progress.signals import Bytes, Detail, Fraction, LoadStage, Shards, Signal, Source, Stage

STAGES = tuple(LoadStage)

ESTIMATE_CEILING = 0.95
"""Of a stage that passing time alone can fill."""

UNFINISHED = 0.99
"""The most that is shown before the model answered a real request."""

RATE_SHARE = 0.05
"""Of a stage that must be done before its pace is taken for a forecast."""

RATE_SECONDS = 1.0
"""For which a stage must have run before its pace is taken for a forecast."""

WARM_SHARE = 0.9
"""Of the bytes: with less in memory when warming up begins, reading the rest is what warming up consists of."""

_WORDS = {
    LoadStage.QUEUED: "waiting for a slot and memory",
    LoadStage.FETCHING: "downloading",
    LoadStage.VERIFYING: "verifying files",
    LoadStage.STARTING: "starting the backend",
    LoadStage.LOADING_WEIGHTS: "loading weights",
    LoadStage.WARMING_UP: "warming up",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """Where a load stands.

    Attributes:
        fraction: 0..1 over the whole load, monotone; 1 only when the model answered.
        shards_done, shards_total, current_shard: files of weights; 0 and "" if unknown.
        bytes_done, bytes_total: of the download while fetching, else of the weights read; 0 if unknown.
        source: the best one that spoke in this stage.
        detail: for a person.
        eta_seconds: None unless there is a pace or a history to tell it from.
    """

    stage: LoadStage
    fraction: float = 0.0
    shards_done: int = 0
    shards_total: int = 0
    current_shard: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    source: Source = Source.ESTIMATED
    detail: str = ""
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Claim:
    """The share of a stage lies between `low` and `high`, somebody says."""

    low: float
    high: float

    def within(self, better: "_Claim") -> "_Claim":
        return _Claim(_clamp(self.low, better), _clamp(self.high, better))


class Tracker:
    """The progress of one attempt to load one model.

    Args:
        expected: seconds that each stage to come usually takes; their ratio is how the whole is divided. A stage
            that is not expected takes no part of it.
        measured: `expected` was measured on this host (see `history`), and so may be shown as a forecast.
        now: like all times here, seconds of any one monotonic clock.
    """

    def __init__(self, expected: Mapping[LoadStage, float], *, measured: bool, now: float) -> None:
        self._expected = {stage: max(0.0, expected.get(stage, 0.0)) for stage in STAGES}
        self._measured = measured
        self._shown = LoadProgress(stage=LoadStage.QUEUED)
        self._entered = {LoadStage.QUEUED: now}
        self._claims: dict[tuple[Source, type], _Claim] = {}
        self._bytes_before = 0.0
        self._detail = ""
        self._finished = False
        self._news_at = now

    @property
    def stage(self) -> LoadStage:
        """The stage that the load is in."""
        return self._shown.stage

    @property
    def news_at(self) -> float:
        """When something last went forward; what a stall is measured from. Time passing is no news."""
        return self._news_at

    def feed(self, signal: Signal, now: float) -> None:
        """Take in a signal. Those that say nothing about progress are ignored."""
        before = (self._shown, self._detail, dict(self._claims))
        match signal:
            case Stage(stage, _):
                self._enter(stage, now)
            case Shards(done, total, current, source):
                self._enter(LoadStage.LOADING_WEIGHTS, now)
                self._shards(done, total, current, source)
            case Bytes(done, total, source):
                if self.stage is not LoadStage.FETCHING:
                    self._enter(LoadStage.LOADING_WEIGHTS, now)
                self._bytes(done, total, source)
            case Fraction(stage, value, source):
                self._enter(stage, now)
                self._claim(stage, source, Fraction, value, value)
            case Detail(text):
                self._detail = text
            case _:
                return
        if before != (self._shown, self._detail, self._claims):
            self._news_at = now

    def finish(self, now: float) -> Mapping[LoadStage, float]:
        """The model answers: the fraction is 1. Returns the seconds that each stage took, for the history."""
        self._finished = True
        ends = [*list(self._entered.values())[1:], now]
        return {stage: end - begin for (stage, begin), end in zip(self._entered.items(), ends, strict=True)}

    def progress(self, now: float) -> LoadProgress:
        """Return where the load stands."""
        share, source = self._share(now)
        fraction = 1.0 if self._finished else max(self._shown.fraction, self._overall(share))
        self._shown = replace(self._shown, fraction=fraction, source=source)
        eta = 0.0 if self._finished else self._eta(share, source, now)
        return replace(self._shown, detail=self._detail or self._words(), eta_seconds=eta)

    def _enter(self, stage: LoadStage, now: float) -> None:
        if STAGES.index(stage) <= STAGES.index(self.stage):
            return
        self._shown = replace(self.progress(now), stage=stage)
        if stage is LoadStage.WARMING_UP:
            self._bytes_before = _ratio(self._shown.bytes_done, self._shown.bytes_total)
        else:
            self._shown = replace(self._shown, bytes_done=0, bytes_total=0)
        self._entered[stage] = now
        self._claims = {}
        self._detail = ""

    def _shards(self, done: int, total: int, current: str, source: Source) -> None:
        known = self._shown
        if total != known.shards_total or done >= known.shards_done:
            self._shown = replace(known, shards_done=done, shards_total=total, current_shard=current)
        self._claim(LoadStage.LOADING_WEIGHTS, source, Shards, _ratio(done, total), _ratio(done + 1, total))

    def _bytes(self, done: int, total: int, source: Source) -> None:
        known = self._shown
        if total != known.bytes_total or done >= known.bytes_done:
            self._shown = replace(known, bytes_done=done, bytes_total=total)
        share = _ratio(done, total)
        if self.stage is LoadStage.WARMING_UP:
            if self._bytes_before > WARM_SHARE:
                return
            share = (share - self._bytes_before) / (1 - self._bytes_before)
        self._claim(self.stage, source, Bytes, share, share)

    def _claim(self, stage: LoadStage, source: Source, kind: type, low: float, high: float) -> None:
        if stage is self.stage:
            self._claims[source, kind] = _Claim(min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0))

    def _share(self, now: float) -> tuple[float, Source]:
        """Return the share of the stage that is done: the best source's claim, narrowed by the others'."""
        if not self._claims:
            usual = self._expected[self.stage]
            passed = (now - self._entered[self.stage]) / usual if usual else 0.0
            return min(passed, ESTIMATE_CEILING), Source.ESTIMATED
        ordered = sorted(self._claims.items(), key=lambda item: (-item[0][0], item[1].high - item[1].low))
        merged = _Claim(0.0, 1.0)
        for _, claim in ordered:
            merged = claim.within(merged)
        return merged.low, ordered[0][0][0]

    def _overall(self, share: float) -> float:
        total = sum(self._expected.values())
        position = STAGES.index(self.stage)
        before = sum(self._expected[stage] for stage in STAGES[:position])
        return min((before + share * self._expected[self.stage]) / total, UNFINISHED) if total else 0.0

    def _eta(self, share: float, source: Source, now: float) -> float | None:
        passed = now - self._entered[self.stage]
        later = sum(self._expected[stage] for stage in STAGES[STAGES.index(self.stage) + 1 :])
        if source > Source.ESTIMATED and share >= RATE_SHARE and passed >= RATE_SECONDS:
            return passed * (1 - share) / share + later
        return max(0.0, self._expected[self.stage] - passed) + later if self._measured else None

    def _words(self) -> str:
        shown, words = self._shown, _WORDS[self.stage]
        if self.stage is LoadStage.LOADING_WEIGHTS and shown.shards_total > 1:
            words += f": {shown.shards_done} of {shown.shards_total} files"
            words += f", reading {shown.current_shard}" if shown.current_shard else ""
        return words


def _clamp(value: float, claim: _Claim) -> float:
    return min(max(value, claim.low), claim.high)


def _ratio(done: int, total: int) -> float:
    return done / total if total > 0 else 0.0
