"""All models of a runner, for those who call it: loading, reading, stopping, choosing the active one."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from slipway_service.fault import Fault, FieldViolation, Reason

from slipway_runner.backends.base import Task
from slipway_runner.devices.device import Device
from slipway_runner.devices.reserve import Reservations
from slipway_runner.models.active import ActiveModels
from slipway_runner.models.adoption import take_over
from slipway_runner.models.ask import Asker
from slipway_runner.models.demand import Demand, Dormant, ShowDormant, Wanted, asked_for_by_nobody, shown_to_nobody
from slipway_runner.models.gate import DRAINED_RETRY_SECONDS, Gate
from slipway_runner.models.identity import read_instance
from slipway_runner.models.load import Load, Loaded, Order
from slipway_runner.models.means import (
    DEFAULT_NUMBERS,
    Drain,
    Means,
    MemoryReturned,
    Numbers,
    Sink,
    no_drain,
)
from slipway_runner.models.memory import memory_back
from slipway_runner.models.plan import Backends
from slipway_runner.models.record import Activation, Model
from slipway_runner.models.release import Holds, ReleasePolicy
from slipway_runner.models.roster import UNLOADING_RETRY_SECONDS, Roster
from slipway_runner.models.saved import Saved, Scribe
from slipway_runner.models.scan import MemberScan
from slipway_runner.models.snapshots import LocalPaths, NoRegistry, Snapshots
from slipway_runner.models.spec import Spec
from slipway_runner.models.states import State
from slipway_runner.models.supervisor import Supervisor
from slipway_runner.models.usage import UseOf, no_use, watch_use
from slipway_runner.process import cgroup
from slipway_runner.process.journal import Unreadable
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.ports import Ports
from slipway_runner.progress.history import History


class Fleet:
    """Every model of this runner. Nothing here but `load` and `shutdown` waits for anything.

    Args:
        means: what the supervisors work with; see `open_fleet`.
        use_of: when models were last used.
        release: what follows when a model's files are to be deleted.
        demand: models that come back when they are asked for.
    """

    def __init__(self, means: Means, use_of: UseOf, release: ReleasePolicy, demand: Demand) -> None:
        self._means = means
        self._use_of = use_of
        self._demand = demand
        self._roster = Roster(means)
        self._gate = Gate()
        self._holds = Holds(self._roster, means.snapshots, release, use_of, look_again=means.numbers.release_look)

    @asynccontextmanager
    async def at_work(self, saved: list[Saved], unreadable: list[Unreadable]) -> AsyncIterator[None]:
        """Go on with the models of the runner before this one (see `adoption`), and look after all of them.

        At the end nobody looks after them any more; those that were not stopped run on.
        """
        means = self._means
        means.tasks.start_soon(means.scribe.run)
        means.tasks.start_soon(means.members.run)
        await take_over(saved, unreadable, means, self._roster)
        means.tasks.start_soon(self._watch_use)
        means.tasks.start_soon(self._demand.watch, self._load_again)
        means.tasks.start_soon(self._holds.keep)
        try:
            yield
        finally:
            await self.leave()
            means.scribe.close()
            means.ports.close()
            if means.cgroup_root is not None:
                cgroup.remove(means.cgroup_root)  # stays while a backend that was left running is in it
            means.tasks.cancel_scope.cancel()

    async def _watch_use(self) -> None:
        seconds, wall = self._means.numbers.use_scan, self._means.wall
        await watch_use(self._roster, self._use_of, self._unload_for_now, seconds=seconds, wall=wall)

    def _unload_for_now(self, supervisor: Supervisor, why: str) -> None:
        self._demand.add(supervisor.model, supervisor.plan.asked)
        supervisor.unload(why=why)

    async def _load_again(self, dormant: Dormant) -> None:
        await self.load(dormant.asked, dormant.model.id, activation=dormant.activation, evict=True)

    # Reading.

    def get(self, model_id: str) -> Model:
        """The model as it is. Raises Fault: MODEL_NOT_FOUND."""
        return self._roster.get(model_id).model

    def list(self) -> list[Model]:
        """All of them, by id."""
        return [supervisor.model for supervisor in self._roster]

    @property
    def journal(self) -> Scribe:
        """What the next runner will find; whether the disk takes it can be read there."""
        return self._means.scribe

    def claimed(self, device: Device) -> int:
        """Bytes of a device that loads under way have claimed and not taken yet."""
        return self._means.reservations.claimed(device)

    def log(self, model_id: str) -> LogFile:
        """What the model's backend writes, of all its starts. Raises Fault: MODEL_NOT_FOUND."""
        return self._roster.get(model_id).log

    def supervisor(self, model_id: str) -> Supervisor:
        """Who looks after the model. Raises Fault: MODEL_NOT_FOUND."""
        return self._roster.get(model_id)

    # Loading and stopping.

    async def load(
        self,
        spec: Spec,
        model_id: str = "",
        *,
        activation: Activation = Activation.ALWAYS,
        evict: bool = False,
        replaces: str = "",
        unload_first: bool = False,
        validate_only: bool = False,
    ) -> Loaded:
        """Begin to load, or join what is there.

        Args:
            spec: what to run.
            model_id: under which id; empty for the source's own name.
            activation: whether it becomes the active model when it is LOADED.
            evict: other models may be unloaded to make room; see `planning.removable_for_room`.
            replaces: id of a model to take over from: it is unloaded once this one is LOADED, which becomes active if
                that one was and has the same task.
            unload_first: where both do not fit, that one may be unloaded before.
            validate_only: do every check and change nothing; the model answered has no uid.

        Raises:
            Fault: MODEL_ID_TAKEN, MODEL_UNLOADING, MODEL_NOT_FOUND (the one to be replaced), MODEL_NOT_LOADED (the one
                that was joined cannot replace another now), DRAINING, DISK_FULL, DISK_FAULT, and what
                `planning.ask_source` and `choice.make_plan` raise.
        """
        order = Order(
            spec=spec,
            model_id=model_id or spec.default_id,
            activation=activation,
            evict=evict,
            replaces=replaces,
            unload_first=unload_first,
            validate_only=validate_only,
        )
        loaded = await Load(order, self._roster, self._means, self._use_of, self._gate).begin()
        if not validate_only:
            self._demand.discard(order.model_id)
            for gone in (self._roster.get(one) for one in loaded.evicted if one != replaces):
                self._demand.add(gone.model, gone.plan.asked)
        return loaded

    def unload(self, model_id: str, *, drain_seconds: float | None = None) -> Model:
        """Have a model stopped; it is UNLOADING when this returns, and gone later. A second call joins.

        One that is gone already and would come back on demand is UNLOADED for good.

        Args:
            model_id: which.
            drain_seconds: how long requests in flight may take; None is the runner's setting.

        Raises:
            Fault: MODEL_NOT_FOUND.
        """
        dormant = self._demand.discard(model_id)
        if dormant is not None and self._roster.find(model_id) is None:
            return dormant.model
        supervisor = self._roster.get(model_id)
        supervisor.unload(drain_seconds)
        return supervisor.model

    async def shutdown(self, *, keep_models: bool = False) -> None:
        """Stop all models at once and wait for it, or leave them running for the next runner."""
        self._gate.close("the runner is shutting down", retry_after=UNLOADING_RETRY_SECONDS)
        if keep_models:
            await self.leave()
            return
        for supervisor in self._roster:
            supervisor.unload(why="the runner is shutting down")
        if not await self._all_gone(self._means.numbers.shutdown):
            for supervisor in self._roster:
                supervisor.kill()
            await self._all_gone(self._means.numbers.kill)
        await self._means.scribe.flush()

    async def _all_gone(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            for supervisor in self._roster:
                await supervisor.gone.wait()
            return True
        return False

    async def leave(self) -> None:
        """Look after no model any more, and stop none."""
        for supervisor in self._roster:
            supervisor.leave()
        with anyio.CancelScope(shield=True):
            await self._means.scribe.flush()

    # Draining.

    @property
    def draining(self) -> bool:
        """Whether new models are refused."""
        return self._gate.closed

    def drain(self, *, keep_models: bool = False, drain_seconds: float | None = None) -> None:
        """Refuse new models from now on; what is there can still be joined.

        Args:
            keep_models: let those that are there run on; else they are UNLOADING when this returns.
            drain_seconds: how long requests in flight may take; None is the runner's setting.
        """
        self._gate.close("the runner is being drained; ask another one", retry_after=DRAINED_RETRY_SECONDS)
        if not keep_models:
            for supervisor in self._roster:
                supervisor.unload(drain_seconds, why="the runner is being drained")

    def undrain(self) -> None:
        """Take models again. What is being unloaded goes all the same."""
        self._gate.open()

    # The active models.

    def active(self, task: Task) -> Model:
        """The active model of a task. Raises Fault: NO_ACTIVE_MODEL."""
        model_id = self._means.active.get(task)
        if model_id is None or (found := self._roster.find(model_id)) is None:
            raise Fault(Reason.NO_ACTIVE_MODEL, f"no model is active for {task}; load one or set one")
        return found.model

    def set_active(self, model_id: str, *, task: Task | None = None, expected: str | None = None) -> str | None:
        """Make a LOADED model the active one of its task, if the expectation holds.

        Args:
            model_id: which.
            task: must be the model's own; None is that.
            expected: the id that must be active now, "" for none, None for no expectation.

        Returns:
            The id that was active before.

        Raises:
            Fault: MODEL_NOT_FOUND, MODEL_NOT_LOADED, ACTIVE_MISMATCH, INVALID_FIELDS.
        """
        model = self._roster.get(model_id).model
        if task not in {None, model.task}:
            text = f"{model_id} serves {model.task}, not {task}"
            raise Fault(Reason.INVALID_FIELDS, text, fields=(FieldViolation("task", text),))
        if model.state is not State.LOADED:
            raise Fault(Reason.MODEL_NOT_LOADED, f"{model_id} is {model.state}; only a LOADED model can be active")
        before = self._means.active.set(model.task, model_id, expected)
        self._roster.active_changed(before, model_id)
        return before


@asynccontextmanager
async def open_fleet(
    *,
    state_dir: Path,
    backends: Backends,
    sink: Sink,
    devices: Callable[[], tuple[Device, ...]],
    numbers: Numbers = DEFAULT_NUMBERS,
    snapshots: Snapshots | None = None,
    paths: LocalPaths | None = None,
    ports: Ports | None = None,
    drain: Drain = no_drain,
    memory_returned: MemoryReturned | None = None,
    use_of: UseOf = no_use,
    wanted: Wanted = asked_for_by_nobody,
    show_dormant: ShowDormant = shown_to_nobody,
    release: ReleasePolicy = ReleasePolicy.IDLE,
    trust_remote_code: bool = False,
    operator_environment: Mapping[str, str] | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Fleet]:
    """The models of the runner whose state lies in `state_dir`, those of its predecessor adopted.

    Leaving the context without `shutdown` leaves the backends running, as a crash would.

    Raises:
        JournalInUse: another runner has that state directory.
        StartError: its tag can be neither read nor written.
    """
    scribe, instance, history = await anyio.to_thread.run_sync(_open_state, state_dir)
    written = await anyio.to_thread.run_sync(scribe.read)
    async with Asker() as asker, anyio.create_task_group() as tasks:
        means = Means(
            state_dir=state_dir,
            instance=instance,
            numbers=numbers,
            backends=backends,
            sink=sink,
            tasks=tasks,
            asker=asker,
            scribe=scribe,
            history=history,
            ports=ports or Ports(),
            active=ActiveModels(written.active),
            slots=anyio.CapacityLimiter(numbers.loads_at_once),
            members=MemberScan(numbers.member_scan),
            reservations=Reservations(),
            devices=devices,
            snapshots=snapshots or NoRegistry(),
            paths=paths or LocalPaths(),
            drain=drain,
            memory_returned=memory_returned or partial(memory_back, devices),
            cgroup_root=cgroup.find_root(instance),
            trust_remote_code=trust_remote_code,
            operator_environment=operator_environment or {},
            wall=wall,
        )
        demand = Demand(written.dormant, wanted, show_dormant, scribe.save_dormant)
        fleet = Fleet(means, use_of, release, demand)
        async with fleet.at_work(list(written.models), list(written.unreadable)):
            yield fleet


def _open_state(state_dir: Path) -> tuple[Scribe, str, History]:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Scribe(state_dir / "journal"), read_instance(state_dir), History(state_dir / "history.json")
