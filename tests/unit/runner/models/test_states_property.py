"""Whatever happens in whatever order: one set of processes at a time, and every life comes to rest."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from slipway_runner.models import states
from slipway_runner.models.states import (
    Answered,
    Command,
    Due,
    Event,
    Exited,
    Expired,
    Failed,
    Gone,
    Leaked,
    Life,
    Load,
    Probed,
    RestartPolicy,
    Rules,
    Starting,
    State,
    Unload,
)
from slipway_runner.progress.signals import Cause
from slipway_service.fault import Reason

CAUSE = Cause(Reason.BACKEND_EXITED, "why")
RESTING = {State.LOADED, State.ERROR, State.UNLOADED}


class World:
    """A supervisor's activities without time: what a command starts stays under way until it reports."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.rules = Rules(policy=policy, budget=2)
        self.now = 0.0
        self.under_way: set[str] = set()
        self.processes = 0
        self.forgotten = False
        self.life: Life
        self.take(states.fresh())

    def apply(self, event: Event) -> None:
        self.now += 0.1
        self.take(states.step(self.life, event, self.now, self.rules))

    def take(self, after: states.Step) -> None:
        self.life, commands = after
        for command in commands:
            self.do(command)

    def do(self, command: Command) -> None:
        match command:
            case Command.BEGIN:
                assert self.processes == 0, "a run begins while processes of another may live"
                self.under_way = {"run"}
            case Command.SERVE:
                self.under_way = {"probe"}
            case Command.DOUBT:
                self.under_way = {"probe", "patience"}
            case Command.WAIT:
                self.under_way.add("retry")
            case Command.HALT | Command.KILL:
                self.under_way = {"down"}
            case Command.RELEASE:
                assert self.processes == 0, "the port is given back while a process may have it"
                self.under_way -= {"run", "retry"}
            case Command.FORGET:
                assert self.processes == 0, "a model is forgotten while its processes live"
                self.forgotten = True
                self.under_way = set()
            case Command.ACTIVATE:
                pass

    # What activities report.

    def start_process(self) -> None:
        before = self.life
        self.apply(Starting(self.life.run))
        assert self.life is not before, "a run that is under way may start its process"
        self.processes += 1
        assert self.processes == 1, "two processes for one model"

    def end_down(self) -> None:
        self.processes = 0
        self.under_way.discard("down")
        self.apply(Gone())


class Lives(RuleBasedStateMachine):
    """Random calls, random reports of what is under way, and reports that come too late."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(RestartPolicy.ON_FAILURE)

    @rule(policy=st.sampled_from(RestartPolicy))
    @precondition(lambda self: self.world.forgotten)
    def begin_anew(self, policy: RestartPolicy) -> None:
        self.world = World(policy)

    @rule()
    def load(self) -> None:
        if self.world.life.state in {State.ERROR, State.RESTARTING}:
            self.world.apply(Load())

    @rule()
    def unload(self) -> None:
        self.world.apply(Unload())

    @rule()
    @precondition(lambda self: "run" in self.world.under_way and not self.world.processes)
    def the_process_starts(self) -> None:
        self.world.start_process()

    @rule()
    @precondition(lambda self: "run" in self.world.under_way and self.world.processes)
    def it_answers(self) -> None:
        self.world.under_way.discard("run")
        self.world.apply(Answered(self.world.life.run))

    @rule()
    @precondition(lambda self: "run" in self.world.under_way)
    def the_run_fails(self) -> None:
        self.world.under_way.discard("run")
        self.world.apply(Failed(self.world.life.run, CAUSE))

    @rule()
    @precondition(lambda self: self.world.processes)
    def the_process_exits(self) -> None:
        self.world.apply(Exited(self.world.life.run, CAUSE))

    @rule(good=st.booleans())
    @precondition(lambda self: "probe" in self.world.under_way)
    def a_probe_ends(self, good: bool) -> None:
        self.world.apply(Probed(self.world.life.run, good))

    @rule()
    @precondition(lambda self: "patience" in self.world.under_way)
    def patience_ends(self) -> None:
        self.world.under_way.discard("patience")
        self.world.apply(Expired(self.world.life.run, CAUSE))
        assert self.world.life.state is not State.UNHEALTHY

    @rule()
    @precondition(lambda self: "retry" in self.world.under_way)
    def the_retry_is_due(self) -> None:
        self.world.under_way.discard("retry")
        self.world.apply(Due(self.world.life.run))

    @rule()
    @precondition(lambda self: "down" in self.world.under_way)
    def all_are_gone(self) -> None:
        self.world.end_down()

    @rule()
    @precondition(lambda self: "down" in self.world.under_way and self.world.processes)
    def something_leaks(self) -> None:
        self.world.apply(Leaked(CAUSE))

    @rule(
        run=st.integers(0, 3),
        event=st.sampled_from([Answered, Starting, Due]),
    )
    def a_report_of_an_earlier_run_comes_late(self, run: int, event: type[Answered | Starting | Due]) -> None:
        before = self.world.life
        if run < before.run:
            self.world.apply(event(run))
            assert self.world.life is before

    @invariant()
    def the_table_knows_of_every_process(self) -> None:
        assert self.world.life.occupied or not self.world.processes

    @invariant()
    def what_serves_has_a_process(self) -> None:
        if self.world.life.state in {State.LOADED, State.UNHEALTHY}:
            assert self.world.processes == 1

    @invariant()
    def something_is_under_way_unless_it_rests(self) -> None:
        life = self.world.life
        if life.state not in RESTING:
            assert self.world.under_way, f"stuck in {life}"
        if life.state is State.LOADED:
            assert "probe" in self.world.under_way
        if life.occupied and life.state in {State.ERROR, State.RESTARTING, State.UNLOADING}:
            assert "down" in self.world.under_way, f"nobody brings {life} down"

    def teardown(self) -> None:
        """From anywhere, an unload ends it once what is under way has reported."""
        world = self.world
        world.apply(Unload())
        for _ in range(3):
            if "down" in world.under_way:
                world.end_down()
        assert world.life.state is State.UNLOADED
        assert world.forgotten
        assert not world.under_way


Lives.TestCase.settings = settings(max_examples=300, stateful_step_count=60)
TestLives = Lives.TestCase
