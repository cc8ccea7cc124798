"""Every arrow of the table, and that there are no others."""

from dataclasses import replace

import pytest
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
    step,
)
from slipway_runner.progress.signals import Cause
from slipway_service.fault import Reason

NOW = 1000.0
CAUSE = Cause(Reason.BACKEND_EXITED, "it exited")
LEAK = Cause(Reason.LEAKED, "7 cannot be killed")
RULES = Rules()
NEVER = Rules(policy=RestartPolicy.NEVER)

LOADING = Life(state=State.LOADING)
STARTED = Life(state=State.LOADING, occupied=True)
AGAIN = Life(state=State.LOADING, occupied=True, loaded_once=True, run=2, attempt=2)
WAITING = Life(state=State.LOADING, occupied=True, due=True, run=2)
LOADED = Life(state=State.LOADED, occupied=True, loaded_once=True)
DOUBTFUL = replace(LOADED, bad_probes=2)
SICK = replace(LOADED, state=State.UNHEALTHY, bad_probes=3, error=CAUSE)
RESTARTING = Life(state=State.RESTARTING, loaded_once=True, retry_at=NOW + 2, restarts=(NOW,), restart_count=1)
CLEANING = replace(RESTARTING, occupied=True)
UNLOADING = replace(LOADED, state=State.UNLOADING)
ERROR = Life(state=State.ERROR, error=CAUSE)
LEAKED = replace(ERROR, occupied=True, error=LEAK)
UNLOADED = Life(state=State.UNLOADED)
USED_UP = replace(LOADED, restarts=(NOW - 5, NOW - 4, NOW - 3, NOW - 2, NOW - 1))

Arrow = tuple[Life, Event, State, tuple[Command, ...]]

ARROWS: list[Arrow] = [
    (LOADING, Starting(1), State.LOADING, ()),
    (STARTED, Answered(1), State.LOADED, (Command.ACTIVATE, Command.SERVE)),
    (AGAIN, Answered(2), State.LOADED, (Command.SERVE,)),
    (LOADING, Failed(1, CAUSE), State.ERROR, (Command.RELEASE,)),
    (STARTED, Failed(1, CAUSE), State.ERROR, (Command.KILL,)),
    (AGAIN, Failed(2, CAUSE), State.RESTARTING, (Command.KILL, Command.WAIT)),
    (STARTED, Exited(1, CAUSE), State.ERROR, (Command.KILL,)),
    (AGAIN, Exited(2, CAUSE), State.RESTARTING, (Command.KILL, Command.WAIT)),
    (LOADING, Unload(), State.UNLOADING, (Command.HALT,)),
    (STARTED, Unload(), State.UNLOADING, (Command.HALT,)),
    (WAITING, Gone(), State.LOADING, (Command.BEGIN,)),
    (WAITING, Leaked(LEAK), State.ERROR, ()),
    (WAITING, Unload(), State.UNLOADING, (Command.HALT,)),
    (LOADED, Probed(1, good=False), State.LOADED, ()),
    (DOUBTFUL, Probed(1, good=False), State.UNHEALTHY, (Command.DOUBT,)),
    (DOUBTFUL, Probed(1, good=True), State.LOADED, ()),
    (LOADED, Exited(1, CAUSE), State.RESTARTING, (Command.KILL, Command.WAIT)),
    (USED_UP, Exited(1, CAUSE), State.ERROR, (Command.KILL,)),
    (LOADED, Unload(), State.UNLOADING, (Command.HALT,)),
    (SICK, Probed(1, good=True), State.LOADED, (Command.SERVE,)),
    (SICK, Exited(1, CAUSE), State.RESTARTING, (Command.KILL, Command.WAIT)),
    (SICK, Expired(1, CAUSE), State.RESTARTING, (Command.KILL, Command.WAIT)),
    (SICK, Unload(), State.UNLOADING, (Command.HALT,)),
    (RESTARTING, Due(1), State.LOADING, (Command.BEGIN,)),
    (RESTARTING, Load(), State.LOADING, (Command.BEGIN,)),
    (RESTARTING, Unload(), State.UNLOADED, (Command.RELEASE, Command.FORGET)),
    (CLEANING, Due(1), State.RESTARTING, ()),
    (CLEANING, Load(), State.RESTARTING, ()),
    (CLEANING, Gone(), State.RESTARTING, ()),
    (replace(CLEANING, due=True), Gone(), State.LOADING, (Command.BEGIN,)),
    (CLEANING, Leaked(LEAK), State.ERROR, ()),
    (CLEANING, Unload(), State.UNLOADING, (Command.HALT,)),
    (UNLOADING, Gone(), State.UNLOADED, (Command.RELEASE, Command.FORGET)),
    (UNLOADING, Leaked(LEAK), State.ERROR, ()),
    (ERROR, Load(), State.LOADING, (Command.BEGIN,)),
    (ERROR, Unload(), State.UNLOADED, (Command.RELEASE, Command.FORGET)),
    (LEAKED, Load(), State.LOADING, ()),
    (LEAKED, Gone(), State.ERROR, (Command.RELEASE,)),
    (LEAKED, Leaked(LEAK), State.ERROR, ()),
    (LEAKED, Unload(), State.UNLOADING, (Command.HALT,)),
]


@pytest.mark.parametrize(("life", "event", "state", "commands"), ARROWS)
def test_arrow(life: Life, event: Event, state: State, commands: tuple[Command, ...]) -> None:
    after, ordered = step(life, event, NOW, RULES)
    assert (after.state, ordered) == (state, commands)


# What an arrow leaves of a life besides its state; all else is as it was.
LEFT: list[tuple[Life, Event, dict[str, object]]] = [
    (LOADING, Starting(1), {"occupied": True}),
    (replace(STARTED, bad_probes=1), Answered(1), {"loaded_once": True, "bad_probes": 0}),
    (AGAIN, Answered(2), {}),
    (STARTED, Failed(1, CAUSE), {"error": CAUSE}),
    (AGAIN, Exited(2, CAUSE), {"error": CAUSE, "restarts": (NOW,), "restart_count": 1, "retry_at": NOW + 2}),
    (WAITING, Gone(), {"occupied": False, "due": False}),
    (WAITING, Leaked(LEAK), {"error": LEAK, "due": False}),
    (WAITING, Unload(), {"due": False}),
    (STARTED, Leaked(LEAK), {}),
    (LOADED, Probed(1, good=False), {"bad_probes": 1}),
    (DOUBTFUL, Probed(1, good=True), {"bad_probes": 0}),
    (DOUBTFUL, Probed(1, False, "503"), {"bad_probes": 3, "error": Cause(Reason.BACKEND_UNRESPONSIVE, "503")}),
    (SICK, Probed(1, good=True), {"bad_probes": 0, "error": None}),
    (SICK, Probed(1, good=False), {}),
    (replace(RESTARTING, error=CAUSE), Due(1), {"run": 2, "attempt": 2, "retry_at": None}),
    (CLEANING, Load(), {"due": True}),
    (CLEANING, Due(1), {"due": True}),
    (CLEANING, Gone(), {"occupied": False}),
    (
        replace(CLEANING, due=True),
        Gone(),
        {"occupied": False, "due": False, "run": 2, "attempt": 2, "retry_at": None},
    ),
    (replace(CLEANING, due=True), Unload(), {"due": False, "retry_at": None}),
    (replace(CLEANING, due=True), Leaked(LEAK), {"error": LEAK, "due": False, "retry_at": None}),
    (RESTARTING, Unload(), {"retry_at": None}),
    (UNLOADING, Gone(), {"occupied": False}),
    (UNLOADING, Leaked(LEAK), {"error": LEAK}),
    (LEAKED, Gone(), {"occupied": False}),
    (LEAKED, Leaked(replace(LEAK, text="8, too")), {"error": replace(LEAK, text="8, too")}),
    (replace(LEAKED, run=3), Load(), {"run": 4, "due": True, "error": None}),
]


@pytest.mark.parametrize(("life", "event", "changes"), LEFT)
def test_what_an_arrow_leaves(life: Life, event: Event, changes: dict[str, object]) -> None:
    after, _ = step(life, event, NOW, RULES)
    assert after == replace(life, state=after.state, **changes)  # type: ignore[arg-type]


EVENTS: list[Event] = [
    Load(),
    Unload(),
    Starting(1),
    Answered(1),
    Failed(1, CAUSE),
    Exited(1, CAUSE),
    Probed(1, good=True),
    Probed(1, good=False),
    Expired(1, CAUSE),
    Due(1),
    Gone(),
    Leaked(LEAK),
]


@pytest.mark.parametrize(
    "life", [LOADING, LOADED, SICK, RESTARTING, UNLOADING, ERROR, UNLOADED], ids=lambda it: it.state
)
@pytest.mark.parametrize("event", EVENTS, ids=lambda it: type(it).__name__)
def test_what_has_no_arrow_changes_nothing(life: Life, event: Event) -> None:
    if any(known.state is life.state and type(other) is type(event) for known, other, *_ in ARROWS):
        return
    assert step(life, event, NOW, RULES) == (life, ())


@pytest.mark.parametrize("life", [AGAIN, replace(LOADED, run=2), replace(SICK, run=2), replace(RESTARTING, run=2)])
@pytest.mark.parametrize("event", [event for event in EVENTS if hasattr(event, "run")])
def test_what_an_earlier_run_reports_is_dropped(life: Life, event: Event) -> None:
    assert step(life, event, NOW, RULES) == (life, ())


def test_nothing_follows_unloaded() -> None:
    for event in EVENTS:
        assert step(UNLOADED, event, NOW, RULES) == (UNLOADED, ())


def test_a_new_run_counts_on() -> None:
    begun, _ = step(RESTARTING, Due(1), NOW + 2, RULES)
    assert (begun.run, begun.attempt, begun.retry_at, begun.occupied) == (2, 2, None, False)


def test_a_load_after_an_error_starts_from_nothing_but_keeps_counting_runs() -> None:
    begun, _ = step(replace(ERROR, run=7, attempt=3, restart_count=2, loaded_once=True), Load(), NOW, RULES)
    assert begun == Life(state=State.LOADING, run=8)


def test_no_policy_no_restart() -> None:
    failed, commands = step(LOADED, Exited(1, CAUSE), NOW, NEVER)
    assert (failed.state, failed.error, commands) == (State.ERROR, CAUSE, (Command.KILL,))


def test_delays_double_up_to_the_longest() -> None:
    rules = Rules(budget=10)
    life, delays = LOADED, []
    for _ in range(7):
        life, _ = step(life, Exited(life.run, CAUSE), NOW, rules)
        assert life.retry_at is not None
        delays.append(life.retry_at - NOW)
        life = replace(life, state=State.LOADED)
    assert delays == [2, 4, 8, 16, 32, 60, 60]


def test_restarts_long_ago_count_no_more() -> None:
    after, _ = step(USED_UP, Exited(1, CAUSE), NOW + 600, RULES)
    assert after.state is State.RESTARTING
    assert after.restarts == (NOW + 600,)


def test_a_used_up_budget_says_what_it_was_at_last() -> None:
    after, _ = step(USED_UP, Exited(1, CAUSE), NOW, RULES)
    assert after.error is not None
    assert after.error.reason is Reason.RESTARTS_EXHAUSTED
    assert "it exited" in after.error.text


@pytest.mark.parametrize(
    ("life", "answering", "state", "commands"),
    [
        (LOADED, True, State.LOADED, (Command.SERVE,)),
        (SICK, True, State.LOADED, (Command.SERVE,)),
        (LOADED, False, State.UNHEALTHY, (Command.DOUBT,)),
        (STARTED, False, State.LOADING, (Command.BEGIN,)),
        (UNLOADING, False, State.UNLOADING, (Command.HALT,)),
        (CLEANING, False, State.RESTARTING, (Command.KILL, Command.WAIT)),
        (LEAKED, False, State.ERROR, (Command.KILL,)),
        (WAITING, False, State.LOADING, (Command.KILL,)),
        (replace(STARTED, bad_probes=1), False, State.LOADING, (Command.BEGIN,)),
    ],
)
def test_adoption(life: Life, answering: bool, state: State, commands: tuple[Command, ...]) -> None:
    after, ordered = states.adopted(life, answering=answering)
    assert (after.state, ordered) == (state, commands)
    assert (after.occupied, after.due, after.bad_probes) == (True, life.due, 0)


@pytest.mark.parametrize("remains", [False, True])
@pytest.mark.parametrize("life", [LOADED, SICK, STARTED])
def test_a_lost_process_goes_by_the_policy(life: Life, remains: bool) -> None:
    restarted, commands = states.lost(life, NOW, RULES, remains=remains)
    assert restarted.state is State.RESTARTING
    assert restarted.occupied is remains
    assert commands == ((Command.KILL, Command.WAIT) if remains else (Command.WAIT,))
    failed, _ = states.lost(life, NOW, NEVER, remains=remains)
    assert failed.state is State.ERROR
    assert failed.error is not None
    assert failed.error.reason is Reason.PROCESS_LOST


@pytest.mark.parametrize("life", [LOADED, SICK, STARTED, RESTARTING])
def test_only_always_holds_over_a_reboot(life: Life) -> None:
    again, commands = states.rebooted(life, Rules(policy=RestartPolicy.ALWAYS))
    assert (again.state, again.occupied, commands) == (State.LOADING, False, (Command.BEGIN,))
    assert (again.run, again.attempt) == (life.run + 1, life.attempt + 1)
    failed, _ = states.rebooted(life, RULES)
    assert (failed.state, failed.occupied) == (State.ERROR, False)


@pytest.mark.parametrize(
    ("life", "state", "commands"),
    [
        (LOADING, State.LOADING, (Command.BEGIN,)),
        (RESTARTING, State.RESTARTING, (Command.WAIT,)),
        (UNLOADING, State.UNLOADING, (Command.HALT,)),
        (ERROR, State.ERROR, ()),
    ],
)
def test_what_had_no_process_is_resumed(life: Life, state: State, commands: tuple[Command, ...]) -> None:
    after, ordered = states.resumed(life)
    assert (after.state, ordered) == (state, commands)


@pytest.mark.parametrize(
    ("life", "commands", "due"),
    [
        (LOADING, (Command.KILL,), True),
        (RESTARTING, (Command.KILL, Command.WAIT), False),
        (UNLOADING, (Command.HALT,), False),
        (ERROR, (Command.KILL,), False),
    ],
)
def test_remains_are_ended_before_it_goes_on(life: Life, commands: tuple[Command, ...], due: bool) -> None:
    after, ordered = states.resumed(life, remains=True)
    assert (after.state, after.occupied, after.due, ordered) == (life.state, True, due, commands)


@pytest.mark.parametrize("life", [LOADED, WAITING, CLEANING])
def test_what_this_runner_cannot_look_after_is_an_error(life: Life) -> None:
    after, ordered = states.refused(life, CAUSE)
    assert after == replace(life, state=State.ERROR, occupied=False, due=False, retry_at=None, error=CAUSE)
    assert ordered == (Command.RELEASE,)


def test_restarts_that_lie_ahead_are_no_recent_ones() -> None:
    life, _ = step(replace(USED_UP, restarts=tuple(NOW + 3600 + i for i in range(5))), Exited(1, CAUSE), NOW, RULES)
    assert (life.state, life.restarts, life.retry_at) == (State.RESTARTING, (NOW,), NOW + RULES.first_delay)
