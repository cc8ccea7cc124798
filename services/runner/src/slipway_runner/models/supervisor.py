"""One model: its state machine, and the activities that the machine's commands start and stop.

`apply` is synchronous: an event changes the life, the record is published, and what follows from it has been started or
cancelled when it returns. All of it happens on the event loop's thread, so nothing interleaves with it. Activities
never change the state; they report events.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import structlog

from slipway_runner.backends.base import Backend, Launch
from slipway_runner.models import states
from slipway_runner.models.activities import Activities
from slipway_runner.models.attached import Attached
from slipway_runner.models.health import Health
from slipway_runner.models.means import Means
from slipway_runner.models.pins import Pin
from slipway_runner.models.plan import Plan
from slipway_runner.models.record import SHOWN_PIDS, Activation, Model, message_of
from slipway_runner.models.run import Run
from slipway_runner.models.saved import Saved, Started
from slipway_runner.models.states import Command, Life, Rules, State
from slipway_runner.models.teardown import bring_down
from slipway_runner.process import proc
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.running import Running
from slipway_runner.progress.signals import Cause, Signal
from slipway_runner.progress.tracker import LoadProgress

_log = structlog.get_logger(__name__)

# A registry answers in milliseconds; for one that hangs nobody has to wait.
_FILES_BACK_SECONDS = 2.0


class Owner(Protocol):
    """Who knows all models, as one of them sees it."""

    def take_in(self, supervisor: "Supervisor") -> None:
        """There is a model more."""

    def forget(self, supervisor: "Supervisor") -> None:
        """The model is no more."""

    def active_changed(self, before: str | None, after: str | None) -> None:
        """Another model (by id) is the active one of a task now."""

    def by_uid(self, uid: str) -> "Supervisor | None":
        """Who looks after the model of that uid, if anybody still does."""


class Supervisor:
    """Everything the runner does for one model id.

    Attributes:
        gone: set when the model is no more.
        ended: set when it holds no memory any more, or cannot be made to give it back.

    Args:
        model: the record to begin with.
        life: where it is in its life.
        plan: what is to be run.
        means: the rest of the runner.
        owner: the roster.
        waits_for: models that make room for this one, being unloaded.
    """

    def __init__(
        self,
        model: Model,
        life: Life,
        plan: Plan,
        means: Means,
        owner: Owner,
        waits_for: "tuple[Supervisor, ...]" = (),
    ) -> None:
        self.model = model
        self.life = life
        self.plan = plan
        self.means = means
        self.attached: Attached | None = None
        self.listener: Callable[[Signal], None] | None = None
        self.gone = anyio.Event()
        self.ended = anyio.Event()
        self.waits_for = waits_for
        self._owner = owner
        self._activities = Activities(means.tasks, model.id, self._broken)
        self._killing = False
        self._drain_seconds = means.numbers.drain

    @property
    def backend(self) -> Backend:
        """The adapter."""
        return self.means.backends.adapter(self.plan.backend)

    @property
    def folder(self) -> Path:
        """The model's own directory."""
        return self.means.folder(self.model.uid)

    @property
    def log(self) -> LogFile:
        """What the backend writes."""
        return LogFile(self.folder / "log")

    @property
    def pin(self) -> Pin:
        """Its files, held."""
        return Pin(self.means.snapshots, self.plan, self.model.uid)

    @property
    def rules(self) -> Rules:
        """The table's numbers for this model."""
        return self.means.numbers.rules(self.model.spec.restart_policy)

    # The machine.

    def begin(self, commands: tuple[Command, ...]) -> None:
        """Start what a life begins with. Raises Fault: as `Means.make_folder`."""
        self.means.make_folder(self.model.uid)
        self._count_active(self.life.state, commands)
        self._publish(entered=self.life.state is not self.model.state)  # it may be another since it was written down
        self._take(self.life, commands)

    def apply(self, event: states.Event, **changes: Any) -> bool:
        """Let an event happen.

        Args:
            event: what happened.
            changes: fields of the record to change with the transition, if there is one.

        Returns:
            Whether it had an arrow from where the model was.
        """
        after, commands = states.step(self.life, event, self.means.wall(), self.rules)
        if after is self.life and not commands:
            return False
        self._take(after, commands, **changes)
        return True

    def unload(self, drain_seconds: float | None = None, *, why: str = "") -> None:
        """Have it stopped; joins when it is being stopped.

        Args:
            drain_seconds: how long requests in flight may take; None is the runner's setting.
            why: in words, where nobody has asked for just this; the model says so.
        """
        if drain_seconds is not None:
            self._drain_seconds = drain_seconds
        self.apply(states.Unload(), leaving=why)

    def kill(self) -> None:
        """Have it stopped without any politeness."""
        self.apply(states.Unload())
        self._bring_down(polite=False)

    def renew(self, model: Model, plan: Plan, waits_for: "tuple[Supervisor, ...]") -> None:
        """Load it anew after an ERROR, as `model` with its new uid, whose folder is there."""
        self._finish_uid()
        self.means.reservations.release(self.model.uid)
        self.means.tasks.start_soon(self.pin.release)
        self.model, self.plan, self.waits_for, self.ended = model, plan, waits_for, anyio.Event()
        self.apply(states.Load())

    def may_take_over(self, other: "Supervisor") -> bool:
        """Whether it is LOADED, or on its first way there and to take over from nobody else."""
        if self.life.state is State.LOADING and not self.life.loaded_once:
            return self._owner.by_uid(self.model.replaces) in {None, other}
        return self.life.state is State.LOADED

    def take_over(self, other: "Supervisor") -> None:
        """Take the place of another as soon as it is LOADED, where it may."""
        if self.life.state is State.LOADED:
            if other.model.active_for(self.model.task):
                before = self.means.active.set(self.model.task, self.model.id)
                self._owner.active_changed(before, self.model.id)
            other.unload(why=f"{self.model.id} has taken over")
        else:
            self.model = replace(self.model, replaces=other.model.uid)
            self.save()

    def _take(self, after: Life, commands: tuple[Command, ...], **changes: Any) -> None:
        before, self.life = self.life, after
        self._count_active(after.state, commands)
        if _visible(before, after) or changes:
            self._publish(entered=after.state is not before.state, **changes)
        self.save()
        for command in commands:
            self._do(command)

    def _count_active(self, state: State, commands: tuple[Command, ...]) -> None:
        """Before the transition is told, so that it tells this, too."""
        active = self.means.active
        if Command.ACTIVATE in commands:
            before = active.get(self.model.task)
            replaced = self._owner.by_uid(self.model.replaces)
            takes_over = replaced is not None and replaced.model.active_for(self.model.task)
            wish = Activation.ALWAYS if takes_over else self.model.activation
            if active.activate(self.model.task, self.model.id, wish):
                self._owner.active_changed(before, None)
        if state in {State.UNLOADING, State.ERROR, State.UNLOADED} and active.drop(self.model.id):
            self._owner.active_changed(None, None)

    def show_active(self) -> None:
        """Tell whether it is the active model, when that has changed and nothing else."""
        if self.model.active is not self.means.active.is_active(self.model.id):
            self._publish(entered=False)

    def show_members(self) -> None:
        """Tell which processes it has, when that has changed and nothing else."""
        if self.attached is not None and set(self.model.pids) != set(self.attached.pids[:SHOWN_PIDS]):
            self._publish(entered=False)

    def _publish(self, *, entered: bool, **changes: Any) -> None:
        now = self.means.wall()
        state, error = self.life.state, self.life.error
        progress = self.model.progress if state is State.LOADING and not entered else None
        why = changes.get("leaving", self.model.leaving) if state is State.UNLOADING else error.text if error else ""
        self.model = replace(
            self.model,
            state=state,
            generation=self.model.generation + 1,
            error=error if state in {State.ERROR, State.RESTARTING} else None,
            attempt=self.life.attempt,
            restart_count=self.life.restart_count,
            retry_time=self.life.retry_at,
            active=self.means.active.is_active(self.model.id),
            progress=progress,
            message=message_of(state, why, progress),
            load_time=now if entered and state is State.LOADED else self.model.load_time,
            update_time=now if entered else self.model.update_time,
            **{**_process_fields(self.attached), **changes},
        )
        self.means.sink.publish(self.model)
        _log.info("model", id=self.model.id, uid=self.model.uid, state=state.value, message=self.model.message)

    def report(self, progress: LoadProgress) -> None:
        """Let everybody see how far the load is. What comes late, when it is no load any more, is dropped."""
        if self.life.state is not State.LOADING:
            return
        self.model = replace(self.model, progress=progress, message=progress.detail)
        self.means.sink.progress(self.model.id, self.model.uid, progress)

    def _do(self, command: Command) -> None:
        match command:
            case Command.BEGIN:
                self._activities.end("retry", "probe", "patience")
                self._activities.start("run", Run(self).go)
            case Command.SERVE:
                self.means.reservations.release(self.model.uid)
                self._activities.end("run", "patience")
                self._activities.start("probe", Health(self).probe)
            case Command.DOUBT:
                self._activities.start("probe", Health(self).probe)
                self._activities.start("patience", Health(self).lose_patience)
            case Command.WAIT:
                self._activities.start("retry", self._wait_for_retry)
            case Command.HALT:
                self._bring_down(polite=not self._killing)
            case Command.KILL:
                self._bring_down(polite=False)
            case Command.RELEASE:
                self._activities.end("run", "retry", "pin")
                self.means.reservations.release(self.model.uid)
                self.means.tasks.start_soon(self.pin.release)
            case Command.FORGET:
                self._activities.end_all()
                self._finish_uid()
                self._owner.forget(self)
                self.ended.set()
                self.gone.set()
            case Command.ACTIVATE:  # the rest of it was done before the transition was told
                if (replaced := self._owner.by_uid(self.model.replaces)) is not None:
                    replaced.unload(why=f"{self.model.id} has taken over")

    def _broken(self, activity: str, cause: Cause) -> None:
        """An activity failed in a way that it did not report itself."""
        if activity == "down":
            self.apply(states.Leaked(cause))
        elif activity in {"run", "exit"}:
            self.apply(states.Failed(self.life.run, cause))
            self.apply(states.Exited(self.life.run, cause))

    async def _wait_for_retry(self) -> None:
        number, at = self.life.run, self.life.retry_at
        if at is not None:
            # No delay is longer: what says so is a clock that was set back.
            await anyio.sleep(min(max(0.0, at - self.means.wall()), self.rules.longest_delay))
        self.apply(states.Due(number))

    # The process.

    def attach(self, running: Running, launch: Launch, started: Started) -> None:
        """Follow a process that was started or found: its output, its end, its members.

        What one that serves already wrote while it was loading says nothing any more.
        """
        attached = self.remains(running, launch, started, replay=self.life.state is State.LOADING)
        self._activities.start("exit", lambda: self._await_exit(attached))
        self._activities.start("output", lambda: self._follow_output(attached))
        self._activities.start("members", Health(self).watch_members)
        self._activities.start("pin", partial(self.pin.keep, taken=not self.model.registry_bypassed))

    def remains(self, running: Running, launch: Launch, started: Started, *, replay: bool = False) -> Attached:
        """Count a process as this model's, so that it is brought down, without following it."""
        self.attached = Attached(running, launch, started, self.log, self._hear, replay=replay)
        return self.attached

    def _hear(self, signal: Signal) -> None:
        if self.listener is not None:
            self.listener(signal)

    async def _await_exit(self, attached: Attached) -> None:
        number = self.life.run
        cause, how = await attached.ended(self.backend)
        self.apply(states.Exited(number, cause), exit=how)

    async def _follow_output(self, attached: Attached) -> None:
        numbers = self.means.numbers
        trimmed = 0
        while True:
            waiting = attached.read_output()
            loading = self.life.state is State.LOADING
            await anyio.sleep(0 if waiting else numbers.log_pause if loading else numbers.log_pause_later)
            if attached.offset - trimmed > 2 * numbers.log_keep:
                trimmed = attached.offset
                await anyio.to_thread.run_sync(attached.log.trim, numbers.log_keep)

    def _bring_down(self, *, polite: bool) -> None:
        self._activities.end("run", "probe", "patience", "retry")
        self._killing = not polite
        self._activities.start("down", lambda: self._down(polite=polite))

    async def _down(self, *, polite: bool) -> None:
        attached = self.attached
        if attached is not None:
            if polite:
                await self._drain()
            await bring_down(
                attached,
                self.backend.stop_ladder,
                polite=polite,
                memory_returned=self.means.memory_returned,
                memory_seconds=self.means.numbers.memory_return,
                leaked=self._leaked,
            )
        if self.life.state is State.UNLOADING:
            await self._give_files_back()
        if attached is not None:  # from here on nothing is awaited: the port may be another's at once
            self.means.ports.release(attached.launch.port)
        self._activities.end("exit", "output", "members")
        self._killing = False
        self.attached = None
        self.apply(states.Gone())

    async def _give_files_back(self) -> None:
        """Before it is UNLOADED: who hears that may delete its files."""
        self._activities.end("pin")
        with anyio.move_on_after(_FILES_BACK_SECONDS):
            await self.pin.release()

    async def _drain(self) -> None:
        try:
            await self.means.drain(self.model.id, self._drain_seconds)
        except Exception:
            _log.exception("draining failed; stopping without it", model=self.model.id)

    def _leaked(self, cause: Cause, pids: tuple[int, ...]) -> None:
        self.ended.set()
        self.apply(states.Leaked(cause), pids=pids[:SHOWN_PIDS])

    # What outlives this object.

    def save(self) -> None:
        """Write down what the next runner must know."""
        if self.life.state is not State.UNLOADED:
            started = self.attached.started if self.attached else None
            self.means.scribe.save(
                Saved(model=self.model, life=self.life, plan=self.plan, started=started, boot_id=proc.boot_id())
            )

    def _finish_uid(self) -> None:
        """Nobody will ask for this uid again."""
        self.means.scribe.forget(self.model.uid)
        self.means.tasks.start_soon(self.means.remove_folder, self.folder)
        self.means.sink.removed(self.model.id, self.model.uid)

    def leave(self) -> None:
        """Stop looking after it without stopping it."""
        self._activities.end_all()
        self.save()
        if self.attached is not None:
            self.attached.running.leave()


def _visible(before: Life, after: Life) -> bool:
    """Whether a change is one that others see; what is about to start, and single bad probes, are between us."""
    return (
        before.state is not after.state
        or (before.occupied and not after.occupied)
        or before.run != after.run
        or before.error != after.error
        or before.retry_at != after.retry_at
    )


def _process_fields(attached: Attached | None) -> dict[str, Any]:
    if attached is None:
        return {"pid": 0, "port": 0, "pids": (), "api_key": None, "paths": {}, "adopted": False}
    launch = attached.launch
    return {
        "pid": attached.running.pid,
        "pids": attached.pids[:SHOWN_PIDS],
        "port": launch.port,
        "host": launch.host,
        "served_name": launch.model_field,
        "api_key": launch.api_key,
        "paths": launch.paths,
        "adopted": attached.running.child is None,
    }
