"""Whatever happens to a log and its watchers, none misses or repeats a transition, and all end up with the state."""

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slipway_service.eventlog import Bounds, EventLog, Filter
from slipway_service.watcher import Pace, Watch, Watcher

from tests.unit.service.watching import Mirror, load, model_event, progress, progress_event, unload

NAMES = [f"models/{letter}" for letter in "abcde"]
FILTERS = [Filter(), Filter(names=frozenset(NAMES[:2])), Filter(names=frozenset({"models/never"}))]
PACE = Pace(batch_events=3, batch_size=50)  # two or three events, so that both bounds are met


class Subscriber:
    """A client with its filter: a stream that is open or not, and what it has made of what came."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.mirror = Mirror()
        self.stream: Watcher | None = None

    def connect(self, log: EventLog, now: float) -> None:
        self.stream = Watcher(log, Watch(wanted=self.wanted, after=self.mirror.cursor), now=now, pace=PACE)
        self.mirror.connect()

    def read(self, now: float) -> bool:
        """Take one batch; whether there was one."""
        if self.stream is None or (batch := self.stream.take(now)) is None:
            return False
        self.mirror.receive(batch)
        return True


class Watching(RuleBasedStateMachine):
    """Appends, progress, deletions, slow readers, disconnections, restarts and compactions, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.history: list[tuple[int, str, str]] = []
        self.alive: dict[str, str] = {}
        self.subscribers = [Subscriber(wanted) for wanted in FILTERS for _ in range(2)]

    @initialize(bound=strategies.integers(1, 8))
    def begin(self, bound: int) -> None:
        self.bounds = Bounds(entries=bound)
        self.log = EventLog("epoch 0", bounds=self.bounds)

    @rule(name=strategies.sampled_from(NAMES))
    def transition(self, name: str) -> None:
        uid = self._next()
        load(self.log, name, uid)
        self.alive[name] = uid
        self.history.append((self.log.revision, name, uid))

    @rule(name=strategies.sampled_from(NAMES))
    def deletion(self, name: str) -> None:
        if name in self.alive:
            uid = self.alive.pop(name)
            unload(self.log, name, uid)
            self.history.append((self.log.revision, name, uid))

    @rule(name=strategies.sampled_from(NAMES))
    def progresses(self, name: str) -> None:
        progress(self.log, name, f"{self.alive.get(name)}/{self._next()}")

    @rule(seconds=strategies.sampled_from([0.01, 0.3, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=strategies.integers(0, 5), batches=strategies.integers(1, 4))
    def reads(self, number: int, batches: int) -> None:
        subscriber = self.subscribers[number]
        if subscriber.stream is None:
            subscriber.connect(self.log, self.now)
        for _ in range(batches):
            subscriber.read(self.now)

    @rule(number=strategies.integers(0, 5))
    def disconnects(self, number: int) -> None:
        self.subscribers[number].stream = None

    @rule()
    def restarts_with_another_epoch(self) -> None:
        """A runner: its log is gone, what it runs is there again."""
        self.log = EventLog(f"epoch {self._next()}", bounds=self.bounds)
        self.history.clear()
        for name, uid in self.alive.items():
            self.log.append(name, model_event(name, uid))
            self.history.append((self.log.revision, name, uid))
        for subscriber in self.subscribers:
            subscriber.stream = None

    @rule()
    def restarts_with_its_durable_log(self) -> None:
        """A registry: epoch, head, state and recent history come back from its database."""
        log = self.log
        self.log = EventLog(
            log.epoch,
            bounds=self.bounds,
            revision=log.revision,
            state=log.state(Filter()),
            entries=list(log.after(log.compacted)),
        )
        for subscriber in self.subscribers:
            subscriber.stream = None

    @invariant()
    def nothing_is_missed_or_repeated(self) -> None:
        for subscriber in self.subscribers:
            mirror, names = subscriber.mirror, subscriber.wanted.names
            if mirror.cursor is None or mirror.cursor.epoch != self.log.epoch:
                continue
            assert mirror.told == [
                (name, uid)
                for revision, name, uid in self.history
                if mirror.since < revision <= mirror.cursor.revision and (not names or name in names)
            ]

    def teardown(self) -> None:
        """Everybody reads to the end: all have the state, and the newest progress."""
        if not hasattr(self, "log"):
            return
        for subscriber in self.subscribers:
            if subscriber.stream is None:
                subscriber.connect(self.log, self.now)
            self.now += 100.0  # for the progress, and for the bookmark where everything was filtered out
            while subscriber.read(self.now):
                self.now += 1.0  # what became progress while a state was read waits for its interval, too
            names = subscriber.wanted.names
            assert subscriber.mirror.state == {
                name: uid for name, uid in self.alive.items() if not names or name in names
            }
            assert subscriber.mirror.cursor == self.log.cursor
            for newest in self.log.progress_after(0, subscriber.wanted):
                assert progress_event(newest.key, subscriber.mirror.progress[newest.key]) == newest.event
        self.nothing_is_missed_or_repeated()

    def _next(self) -> str:
        self.serial += 1
        return str(self.serial)


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=150, stateful_step_count=60)
