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
        (WAITING, False, State.LOADING, (Command.BEGIN,)),
    ],
)
def test_adoption(life: Life, answering: bool, state: State, commands: tuple[Command, ...]) -> None:
    after, ordered = states.adopted(life, answering=answering)
    assert (after.state, ordered) == (state, commands)
    assert after.occupied


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
    assert (again.state, commands) == (State.LOADING, (Command.BEGIN,))
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
