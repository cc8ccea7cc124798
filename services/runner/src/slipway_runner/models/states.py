"""The life of a model as a table: (life, event) → (life, commands). Pure; the supervisor does what the commands say.

An event that has no arrow in the state it meets changes nothing, so that any order of events is safe. Events of a
process carry the number of the run they belong to, and one that comes late, from an earlier run, is dropped.

`occupied` is the memory of what may still be there: it is set before a process is started and cleared only by `Gone`.
No run begins while it is set, so a model never has two sets of processes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from slipway_service.fault import Reason

from slipway_runner.progress.signals import Cause


class State(StrEnum):
    """Where a model is in its life; what each means stands in `slipway.runner.v1.ModelState`."""

    LOADING = "LOADING"
    LOADED = "LOADED"
    UNHEALTHY = "UNHEALTHY"
    RESTARTING = "RESTARTING"
    UNLOADING = "UNLOADING"
    ERROR = "ERROR"
    UNLOADED = "UNLOADED"


class RestartPolicy(StrEnum):
    """What follows when a backend ends by itself; ALWAYS holds over a reboot of the host, too."""

    NEVER = "NEVER"
    ON_FAILURE = "ON_FAILURE"
    ALWAYS = "ALWAYS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers of the table.

    Attributes:
        policy: whether to start again.
        budget: starts again within `window` seconds before it is given up; a fault that comes back five times in ten
        minutes
            needs a person.
        first_delay, longest_delay: seconds before a start again; they double from the first to the longest.
        bad_probes: bad answers in a row that make a model UNHEALTHY; one or two happen under load.
    """

    policy: RestartPolicy = RestartPolicy.ON_FAILURE
    budget: int = 5
    window: float = 600.0
    first_delay: float = 2.0
    longest_delay: float = 60.0
    bad_probes: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """All that the table knows of a model.

    Attributes:
        run: counts begun runs over all loads of this id; what a process reports carries it.
        attempt: which run of this load it is, from 1.
        occupied: processes or device memory may still be there.
        due: the next run begins as soon as nothing is occupied.
        loaded_once: it was LOADED since it was loaded.
        restarts: Unix times of the restarts that still count against the budget.
        retry_at: Unix time of the next run, while RESTARTING.
        error: why, in UNHEALTHY, RESTARTING and ERROR.
    """

    state: State
    run: int = 1
    attempt: int = 1
    occupied: bool = False
    due: bool = False
    loaded_once: bool = False
    bad_probes: int = 0
    restarts: tuple[float, ...] = ()
    restart_count: int = 0
    retry_at: float | None = None
    error: Cause | None = None


class Command(Enum):
    """What the supervisor has to do after a transition, in the order given."""

    BEGIN = "begin a run"
    SERVE = "probe at the normal pace"
    ACTIVATE = "make it the active model if its load asked for that"
    DOUBT = "probe quickly and start the timer after which it is killed"
    HALT = "end whatever is under way and bring the processes down politely; report Gone or Leaked"
    KILL = "end whatever is under way and bring the processes down at once; report Gone or Leaked"
    WAIT = "report Due at retry_at"
    RELEASE = "give back pin, port and reservations"
    FORGET = "the model is no more"


# Events. Those of a run carry its number.


@dataclass(frozen=True, slots=True)
class Load:
    """Somebody asks for the model (again)."""


@dataclass(frozen=True, slots=True)
class Unload:
    """Somebody, idleness, eviction or shutdown wants it gone."""


@dataclass(frozen=True, slots=True)
class Starting:
    """The next thing the run does is to start a process."""

    run: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The backend answered a real request on a port that is ours."""

    run: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The run cannot become LOADED: no files, no process, a stall, a bad answer for good."""

    run: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Exited:
    """The leader of the processes ended, with whatever code."""

    run: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe was answered well, or not, and then why not."""

    run: int
    good: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Expired:
    """It has been UNHEALTHY for as long as it may be."""

    run: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Due:
    """The time of the next run has come."""

    run: int


@dataclass(frozen=True, slots=True)
class Gone:
    """Every process is gone and the device memory came back."""


@dataclass(frozen=True, slots=True)
class Leaked:
    """Something remains that cannot be ended."""

    cause: Cause


Event = Load | Unload | Starting | Answered | Failed | Exited | Probed | Expired | Due | Gone | Leaked
Step = tuple[Life, tuple[Command, ...]]


# How a life begins.


def fresh() -> Step:
    """A load of a model that was not there."""
    return Life(state=State.LOADING), (Command.BEGIN,)


def adopted(life: Life, *, answering: bool) -> Step:
    """Its process was found alive by a new runner, after it had been in `life`.

    That of a load which waits to begin is what an earlier one left behind.
    """
    kept = replace(life, occupied=True, bad_probes=0)
    match life.state:
        case State.LOADING if not life.due:
            return kept, (Command.BEGIN,)
        case State.LOADED | State.UNHEALTHY if answering:
            return replace(kept, state=State.LOADED, error=None), (Command.SERVE,)
        case State.LOADED | State.UNHEALTHY:
            error = Cause(Reason.BACKEND_UNRESPONSIVE, "the backend that was found did not answer")
            return replace(kept, state=State.UNHEALTHY, error=error), (Command.DOUBT,)
        case _:  # it was being brought down
            return resumed(life, remains=True)


def resumed(life: Life, *, remains: bool = False) -> Step:
    """It had no serving process when the runner before this one ended, only, perhaps, remains of one."""
    kept = replace(life, occupied=remains)
    cleaning = (Command.KILL,) if remains else ()
    match life.state:
        case State.RESTARTING:
            return kept, (*cleaning, Command.WAIT)
        case State.LOADING:
            return replace(kept, due=remains), cleaning or (Command.BEGIN,)
        case State.UNLOADING:
            return kept, (Command.HALT,)
        case _:
            return kept, cleaning


def lost(life: Life, now: float, rules: Rules, *, remains: bool) -> Step:
    """The leader of its processes was gone when a new runner looked for it; others of them may remain."""
    if life.state not in {State.LOADING, State.LOADED, State.UNHEALTHY}:
        return resumed(life, remains=remains)
    cause = Cause(Reason.PROCESS_LOST, "the backend ended while the runner was away")
    return _again_or_error(replace(life, occupied=remains), cause, now, rules)


def rebooted(life: Life, rules: Rules) -> Step:
    """The host was rebooted since."""
    if life.state not in {State.LOADING, State.LOADED, State.UNHEALTHY, State.RESTARTING}:
        return resumed(life)
    if rules.policy is RestartPolicy.ALWAYS:
        return _begin(replace(life, occupied=False))
    error = Cause(Reason.PROCESS_LOST, "the host was rebooted; load the model again")
    return replace(life, state=State.ERROR, occupied=False, error=error, retry_at=None), (Command.RELEASE,)


def refused(life: Life, cause: Cause) -> Step:
    """Its process was found, and this runner cannot look after it; it was ended."""
    return replace(life, state=State.ERROR, occupied=False, due=False, retry_at=None, error=cause), (Command.RELEASE,)


# The table.


def step(life: Life, event: Event, now: float, rules: Rules) -> Step:
    """Apply one event.

    Args:
        life: as it is.
        event: what happened.
        now: Unix time, seconds.
        rules: numbers and policy that hold for this model.

    Returns:
        The life after it, the same object when the event has no arrow there, and what to do.
    """
    if getattr(event, "run", life.run) != life.run:
        return life, ()
    arrow = _ARROWS.get((life.state, type(event)))
    return (life, ()) if arrow is None else arrow(life, event, now, rules)


def _start(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    return replace(life, occupied=True), ()


def _answered(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    loaded = replace(life, state=State.LOADED, loaded_once=True, bad_probes=0, error=None)
    first = () if life.loaded_once else (Command.ACTIVATE,)
    return loaded, (*first, Command.SERVE)


def _failed(life: Life, event: Event, now: float, rules: Rules) -> Step:
    assert isinstance(event, Failed | Exited | Expired)
    if life.state is State.LOADING and not life.loaded_once:
        return _error(life, event.cause)
    return _again_or_error(life, event.cause, now, rules)


def _probed(life: Life, event: Event, _now: float, rules: Rules) -> Step:
    assert isinstance(event, Probed)
    if event.good:
        return (replace(life, bad_probes=0) if life.bad_probes else life), ()
    bad = life.bad_probes + 1
    if bad < rules.bad_probes:
        return replace(life, bad_probes=bad), ()
    error = Cause(Reason.BACKEND_UNRESPONSIVE, event.why)
    return replace(life, state=State.UNHEALTHY, bad_probes=bad, error=error), (Command.DOUBT,)


def _recovered(life: Life, event: Event, _now: float, _rules: Rules) -> Step:
    assert isinstance(event, Probed)
    if not event.good:
        return life, ()
    return replace(life, state=State.LOADED, bad_probes=0, error=None), (Command.SERVE,)


def _unload(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    return replace(life, state=State.UNLOADING, due=False, retry_at=None), (Command.HALT,)


def _unload_idle(life: Life, event: Event, now: float, rules: Rules) -> Step:
    """Unload where no run is under way: at once, unless something is still to be brought down."""
    if life.occupied:
        return _unload(life, event, now, rules)
    return replace(life, state=State.UNLOADED, due=False, retry_at=None), (Command.RELEASE, Command.FORGET)


def _due(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    return (replace(life, due=True), ()) if life.occupied else _begin(life)


def _load_anew(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    """A load in ERROR: a new one, that begins when nothing of the old one is left."""
    new = Life(state=State.LOADING, run=life.run + 1, occupied=life.occupied, due=life.occupied)
    return new, () if life.occupied else (Command.BEGIN,)


def _gone(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    free = replace(life, occupied=False)
    if not life.due:
        return free, (Command.RELEASE,) if life.state is State.ERROR else ()
    if life.state is State.LOADING:
        return replace(free, due=False), (Command.BEGIN,)
    return _begin(free)


def _unloaded(life: Life, _event: Event, _now: float, _rules: Rules) -> Step:
    return replace(life, state=State.UNLOADED, occupied=False), (Command.RELEASE, Command.FORGET)


def _leaked(life: Life, event: Event, _now: float, _rules: Rules) -> Step:
    assert isinstance(event, Leaked)
    return replace(life, state=State.ERROR, error=event.cause, due=False, retry_at=None), ()


def _leaked_while_loading(life: Life, event: Event, now: float, rules: Rules) -> Step:
    """The rest of an earlier load stands in the way of this one."""
    return _leaked(life, event, now, rules) if life.due else (life, ())


def _begin(life: Life) -> Step:
    begun = replace(life, state=State.LOADING, run=life.run + 1, attempt=life.attempt + 1, due=False, retry_at=None)
    return begun, (Command.BEGIN,)


def _error(life: Life, cause: Cause) -> Step:
    failed = replace(life, state=State.ERROR, error=cause, due=False, retry_at=None)
    return failed, (Command.KILL if life.occupied else Command.RELEASE,)


def _again_or_error(life: Life, cause: Cause, now: float, rules: Rules) -> Step:
    if rules.policy is RestartPolicy.NEVER:
        return _error(life, cause)
    # Nothing is known of the age of one that lies ahead, because the clock was set back since.
    recent = tuple(at for at in life.restarts if now - rules.window < at <= now)
    if len(recent) >= rules.budget:
        text = f"failed {rules.budget + 1} times within {rules.window:.0f} s, at last: {cause.text}"
        return _error(life, Cause(Reason.RESTARTS_EXHAUSTED, text))
    delay = min(rules.first_delay * 2 ** len(recent), rules.longest_delay)
    again = replace(
        life,
        state=State.RESTARTING,
        restarts=(*recent, now),
        restart_count=life.restart_count + 1,
        retry_at=now + delay,
        error=cause,
        due=False,
    )
    return again, (Command.KILL, Command.WAIT) if life.occupied else (Command.WAIT,)


_Arrow = Callable[[Life, Event, float, Rules], Step]

_ARROWS: Mapping[tuple[State, type[Event]], _Arrow] = {
    (State.LOADING, Starting): _start,
    (State.LOADING, Answered): _answered,
    (State.LOADING, Failed): _failed,
    (State.LOADING, Exited): _failed,
    (State.LOADING, Unload): _unload,
    (State.LOADING, Gone): _gone,
    (State.LOADING, Leaked): _leaked_while_loading,
    (State.LOADED, Probed): _probed,
    (State.LOADED, Exited): _failed,
    (State.LOADED, Unload): _unload,
    (State.UNHEALTHY, Probed): _recovered,
    (State.UNHEALTHY, Exited): _failed,
    (State.UNHEALTHY, Expired): _failed,
    (State.UNHEALTHY, Unload): _unload,
    (State.RESTARTING, Due): _due,
    (State.RESTARTING, Load): _due,
    (State.RESTARTING, Gone): _gone,
    (State.RESTARTING, Leaked): _leaked,
    (State.RESTARTING, Unload): _unload_idle,
    (State.UNLOADING, Gone): _unloaded,
    (State.UNLOADING, Leaked): _leaked,
    (State.ERROR, Load): _load_anew,
    (State.ERROR, Gone): _gone,
    (State.ERROR, Leaked): _leaked,
    (State.ERROR, Unload): _unload_idle,
}
