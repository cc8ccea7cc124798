"""One model: its state machine, and the activities that the machine's commands start and stop.

`apply` is synchronous: an event changes the life, the record is published, and what follows from it has been started or
cancelled when it returns. All of it happens on the event loop's thread, so nothing interleaves with it. Activities
never change the state; they report events.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import anyio
import structlog
from anyio import CancelScope
from slipway_service.fault import Fault, Reason

from slipway_runner.backends.base import Backend, End, Launch, StopStep
from slipway_runner.models import health, run, states
from slipway_runner.models.means import Means
from slipway_runner.models.output import Output
from slipway_runner.models.plan import Plan
from slipway_runner.models.record import Model, ProcessExit
from slipway_runner.models.saved import Saved, Started
from slipway_runner.models.snapshots import PIN_RENEWAL_SECONDS, Snapshot, Want
from slipway_runner.models.spec import RepoSource
from slipway_runner.models.states import Command, Life, Rules, State
from slipway_runner.process import proc, stop
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.proc import ProcessId
from slipway_runner.process.running import Running
from slipway_runner.process.spawn import Exit
from slipway_runner.process.stop import Rung
from slipway_runner.progress.signals import Cause, InForce, Ready, Signal
from slipway_runner.progress.tracker import LoadProgress

_log = structlog.get_logger(__name__)

# Kept with a model whose process ended.
_LAST_LINES = 50
_SHOWN_PIDS = 256


class Owner(Protocol):
    """The fleet, as its supervisors see it."""

    def forget(self, supervisor: "Supervisor") -> None:
        """The model is no more."""

    def active_changed(self, before: str | None, after: str | None) -> None:
        """Another model (by id) is the active one of a task now."""


class Supervisor:
    """Everything the runner does for one model id.

    Args:
        model: the record to begin with.
        life: where it is in its life.
        plan: what is to be run.
        means: the rest of the runner.
        owner: the fleet.
    """

    def __init__(self, model: Model, life: Life, plan: Plan, means: Means, owner: Owner) -> None:
        self.model = model
        self.life = life
        self.plan = plan
        self.means = means
        self.running: Running | None = None
        self.launch: Launch | None = None
        self.output: Output | None = None
        self.snapshot: Snapshot | None = None
        self.started: Started | None = None
        self.causes: list[Cause] = []
        self.ready_hint = anyio.Event()
        self.listener: Callable[[Signal], None] | None = None
        self.probe_now = anyio.Event()
        self.gone = anyio.Event()
        self._owner = owner
        self._scopes: dict[str, CancelScope] = {}
        self._kill_under_way = False
        self._drain_seconds = means.numbers.drain

    @property
    def backend(self) -> Backend:
        """The adapter."""
        return self.means.backends.usable[self.plan.backend][0]

    @property
    def log(self) -> LogFile:
        """What the backend writes."""
        return LogFile(self.folder / "log")

    @property
    def folder(self) -> Path:
        """The model's own directory."""
        return self.means.folder(self.model.uid)

    @property
    def rules(self) -> Rules:
        """The table's numbers for this model."""
        numbers = self.means.numbers
        return Rules(
            policy=self.model.spec.restart_policy,
            budget=numbers.budget,
            window=numbers.window,
            first_delay=numbers.first_delay,
            longest_delay=numbers.longest_delay,
            bad_probes=numbers.bad_probes,
        )

    # The machine.

    def begin(self, commands: tuple[Command, ...]) -> None:
        """Start what a life begins with."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take(self.life, commands)

    def apply(self, event: states.Event, **changes: object) -> bool:
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

    def unload(self, drain_seconds: float | None = None) -> None:
        """Have it stopped; joins when it is being stopped."""
        if drain_seconds is not None:
            self._drain_seconds = drain_seconds
        self.apply(states.Unload())

    def renew(self, model: Model, plan: Plan) -> None:
        """Load it anew after an ERROR, as `model` with its new uid."""
        self._release(self.model.uid)
        self.means.scribe.forget(self.model.uid)
        self.means.sink.removed(self.model.id, self.model.uid)
        self.model, self.plan, self.snapshot = model, plan, None
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.apply(states.Load())

    def _take(self, after: Life, commands: tuple[Command, ...], **changes: object) -> None:
        before, self.life = self.life.state, after
        if Command.ACTIVATE in commands:
            self._activate()
        if after.state in {State.UNLOADING, State.ERROR, State.UNLOADED}:
            self._deactivate()
        self._publish(before, **changes)
        for command in commands:
            self._do(command)

    def _publish(self, before: State, **changes: object) -> None:
        now = self.means.wall()
        life = self.life
        changed = {
            "state": life.state,
            "generation": self.model.generation + 1,
            "error": life.error,
            "attempt": life.attempt,
            "restart_count": life.restart_count,
            "retry_time": life.retry_at,
            "active": self.means.active.is_active(self.model.id),
            "update_time": now if life.state is not before else self.model.update_time,
            **self._process_fields(),
            **changes,
        }
        if life.state is not State.LOADING:
            changed["progress"] = None
        if life.state is State.LOADED and before is not State.LOADED:
            changed["load_time"] = now
        self.model = replace(self.model, **changed)  # type: ignore[arg-type]  # the names are those of the record
        self.means.sink.publish(self.model)
        self.save()
        _log.info("model", id=self.model.id, uid=self.model.uid, state=life.state, error=str(life.error or ""))

    def _process_fields(self) -> dict[str, object]:
        if self.running is None or self.launch is None:
            return {"pid": 0, "port": 0, "pids": (), "api_key": None, "adopted": False}
        return {
            "pid": self.running.pid,
            "port": self.launch.port,
            "host": self.launch.host,
            "served_name": self.launch.model_field,
            "api_key": self.launch.api_key,
            "paths": self.launch.paths,
        }

    def _activate(self) -> None:
        """Before the transition to LOADED is told, so that it tells it, too."""
        before = self.means.active.get(self.model.task)
        if self.means.active.activate(self.model.task, self.model.id, self.model.activation):
            self._owner.active_changed(before, None)

    def _deactivate(self) -> None:
        if self.means.active.drop(self.model.id):
            self._owner.active_changed(None, None)

    def show_active(self) -> None:
        """Tell whether it is the active model, when that has changed and nothing else."""
        if self.model.active is not self.means.active.is_active(self.model.id):
            self._publish(self.life.state)

    def _do(self, command: Command) -> None:
        match command:
            case Command.BEGIN:
                self._end("retry", "probe", "doubt")
                self.start("run", run.Run(self).go)
            case Command.SERVE:
                self._end("run", "doubt")
                self.start("probe", health.Health(self).probe)
            case Command.DOUBT:
                self.probe_now.set()
                self.start("probe", health.Health(self).probe)
                self.start("doubt", health.Health(self).lose_patience)
            case Command.WAIT:
                self.start("retry", self._wait_for_retry)
            case Command.HALT:
                self._bring_down(polite=not self._kill_under_way)
            case Command.KILL:
                self._bring_down(polite=False)
            case Command.RELEASE:
                self._end("run", "retry", "pin")
                self._release(self.model.uid)
            case Command.FORGET:
                self._finish()
            case Command.ACTIVATE:
                pass  # done before the transition was published

    # Activities.

    def start(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Start an activity in place of the one of that name."""
        self._end(name)
        scope = self._scopes[name] = CancelScope()
        self.means.tasks.start_soon(self._guard, name, activity, scope)

    def _end(self, *names: str) -> None:
        for name in names:
            if (scope := self._scopes.pop(name, None)) is not None:
                scope.cancel()

    async def _guard(self, name: str, activity: Callable[[], Awaitable[None]], scope: CancelScope) -> None:
        """Run it; what goes wrong in it ends this model at worst, never the runner."""
        with scope:
            try:
                await activity()
            except Fault as fault:
                self._broken(name, Cause(fault.reason, fault.text))
            except Exception as error:
                _log.exception("activity failed", id=self.model.id, activity=name)
                self._broken(name, Cause(Reason.INTERNAL, f"internal error while the model was in {name}: {error}"))
        if self._scopes.get(name) is scope:
            del self._scopes[name]

    def _broken(self, name: str, cause: Cause) -> None:
        if name == "down":
            self.apply(states.Leaked(cause))
        elif name in {"run", "exit"}:
            self.apply(states.Failed(self.life.run, cause))
            self.apply(states.Exited(self.life.run, cause))

    async def _wait_for_retry(self) -> None:
        number, at = self.life.run, self.life.retry_at
        if at is not None:
            await anyio.sleep(max(0.0, at - self.means.wall()))
        self.apply(states.Due(number))

    # The process.

    def attach(self, running: Running, launch: Launch, started: Started) -> None:
        """Follow a process that was started or found: its output, its end, its members."""
        self.running, self.launch, self.started = running, launch, started
        self.causes.clear()
        self.ready_hint = anyio.Event()
        self.output = Output(self.log, launch.reader, started.log_start)
        self.start("exit", self._await_exit)
        self.start("output", self._follow_output)
        self.start("members", health.Health(self).watch_members)
        if isinstance(self.model.spec.source, RepoSource):
            self.start("pin", self._keep_pin)

    async def _await_exit(self) -> None:
        number, running = self.life.run, self.running
        assert running is not None
        ended = await running.ended()
        self._hear_rest()
        last_lines = self.log.last_lines(_LAST_LINES)
        cause = self._explain(running, ended, last_lines)
        told = ProcessExit(code=ended.code, signal=ended.signal, last_lines=last_lines)
        self.apply(states.Exited(number, cause), exit=told)

    def _explain(self, running: Running, ended: Exit, last_lines: tuple[str, ...]) -> Cause:
        oom_killed = ended.signal == 9 and proc.oom_kills() > running.oom_kills
        number = None if ended.signal is None else int(ended.signal)
        end = End(exit_code=ended.code, signal=number, oom_killed=oom_killed)
        return self.backend.explain(end, tuple(self.causes), last_lines)

    async def _follow_output(self) -> None:
        numbers = self.means.numbers
        while self.output is not None:
            for signal in self.output.read():
                self.hear(signal)
            if not self.output.grown():
                loading = self.life.state is State.LOADING
                await anyio.sleep(numbers.log_pause if loading else numbers.log_pause_later)
                if self.log.size() > 2 * numbers.log_keep:
                    await anyio.to_thread.run_sync(self.log.trim, numbers.log_keep)
            else:
                await anyio.lowlevel.checkpoint()

    def _hear_rest(self) -> None:
        self._end("output")
        if self.output is not None:
            for signal in self.output.rest():
                self.hear(signal)

    def hear(self, signal: Signal) -> None:
        """Take in what the backend says of itself."""
        match signal:
            case Cause():
                self.causes.append(signal)
                self.probe_now.set()
            case Ready():
                self.ready_hint.set()
            case InForce(settings):
                self.model = replace(self.model, settings_in_force={**self.model.settings_in_force, **settings})
            case _:
                pass
        if self.listener is not None:
            self.listener(signal)

    def report(self, progress: LoadProgress) -> None:
        """Let everybody see how far the load is."""
        self.model = replace(self.model, progress=progress, message=progress.detail)
        self.means.sink.progress(self.model.id, self.model.uid, progress)

    def _bring_down(self, *, polite: bool) -> None:
        self._end("run", "probe", "doubt", "retry")
        self._kill_under_way = not polite
        self.start("down", lambda: self._down(polite=polite))

    async def _down(self, *, polite: bool) -> None:
        running = self.running
        if running is None:
            self._gone()
            return
        pids = self.model.pids or (running.pid,)
        if polite:
            await self.means.drain(self.model.id, self._drain_seconds)
        steps = self.backend.stop_ladder
        ladder = tuple(_rung(step) for step in steps if step.signal != 9) if polite else ()
        kill_seconds = max((step.wait_seconds for step in steps if step.signal == 9), default=10.0)
        survivors = await stop.stop(running.family, ladder, kill_seconds=kill_seconds)
        if survivors:
            self._leaked(survivors, "cannot be killed")
            while await stop.stop(running.family, (), kill_seconds=kill_seconds):
                await anyio.sleep(kill_seconds)
        elif not await self.means.memory_returned(pids, self.means.numbers.memory_return):
            self._leaked((), "are gone, and their device memory did not come back")
            while not await self.means.memory_returned(pids, self.means.numbers.memory_return):
                await anyio.sleep(self.means.numbers.memory_return)
        self._gone()

    def _leaked(self, survivors: tuple[ProcessId, ...], what: str) -> None:
        pids = tuple(one.pid for one in survivors) or self.model.pids
        text = f"the processes {', '.join(map(str, pids))} {what}"
        self.apply(states.Leaked(Cause(Reason.LEAKED, text)), pids=pids[:_SHOWN_PIDS])

    def _gone(self) -> None:
        self._kill_under_way = False
        self._end("exit", "output", "members")
        if self.running is not None:
            self.running.reap()
        if self.launch is not None:
            self.means.ports.release(self.launch.port)
        self.running = self.launch = self.output = self.started = None
        self.apply(states.Gone())

    def _release(self, uid: str) -> None:
        if isinstance(self.plan.spec.source, RepoSource):
            self.means.tasks.start_soon(self._release_pin, uid)

    async def _release_pin(self, uid: str) -> None:
        try:
            await self.means.snapshots.release(uid)
        except Exception:
            _log.exception("releasing a pin failed", uid=uid)  # it ends by itself when its time is over

    @property
    def want(self) -> Want:
        """The files to be held for this model."""
        source = self.plan.spec.source
        assert isinstance(source, RepoSource)
        return Want(source=source, commit=self.plan.commit, files=self.plan.wanted, holder=self.model.uid)

    async def _keep_pin(self) -> None:
        while True:
            await anyio.sleep(PIN_RENEWAL_SECONDS)
            try:
                await self.means.snapshots.renew(self.want)
            except Fault as fault:
                _log.warning("renewing a pin failed", id=self.model.id, error=str(fault))

    def _finish(self) -> None:
        self._end(*list(self._scopes))
        self.means.scribe.forget(self.model.uid)
        self.means.sink.removed(self.model.id, self.model.uid)
        self._owner.forget(self)
        self.gone.set()

    def save(self) -> None:
        """Write down what the next runner must know."""
        if self.life.state is not State.UNLOADED:
            root = self.snapshot.root if self.snapshot else None
            self.means.scribe.save(
                Saved(model=self.model, life=self.life, plan=self.plan, root=root, started=self.started)
            )

    def leave(self) -> None:
        """Stop looking after it without stopping it."""
        self._end(*list(self._scopes))
        self.save()
        if self.running is not None:
            self.running.leave()


def _rung(step: StopStep) -> Rung:
    return Rung(step.signal, step.wait_seconds)
