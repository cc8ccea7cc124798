"""All models of a runner: loading, joining, stopping, finding again."""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from slipway_service.fault import Fault, Reason
from slipway_service.weights.model_facts import ModelFacts

from slipway_runner.backends.base import Task
from slipway_runner.devices.device import Device
from slipway_runner.devices.reserve import Reservations
from slipway_runner.models import states
from slipway_runner.models.active import ActiveModels
from slipway_runner.models.adoption import take_over
from slipway_runner.models.ask import Asker
from slipway_runner.models.facts import read_facts
from slipway_runner.models.means import (
    DEFAULT_NUMBERS,
    Drain,
    Means,
    MemoryReturned,
    Numbers,
    Sink,
    no_device_memory,
    no_drain,
    read_instance,
)
from slipway_runner.models.plan import Backends, Plan, Surroundings, make_plan
from slipway_runner.models.record import Activation, Model
from slipway_runner.models.saved import Saved, Scribe
from slipway_runner.models.scan import MemberScan
from slipway_runner.models.snapshots import LocalPaths, NoRegistry, Snapshots
from slipway_runner.models.spec import PathSource, Spec, difference
from slipway_runner.models.states import State
from slipway_runner.models.supervisor import Supervisor
from slipway_runner.process import cgroup
from slipway_runner.process.journal import Unreadable
from slipway_runner.process.logfile import LogFile
from slipway_runner.process.ports import Ports
from slipway_runner.progress.history import History

# A stop usually takes seconds; who asks again then finds it gone.
_UNLOADING_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The answer to a load. `existing`: it was there already, loaded or on its way, with an equal spec."""

    model: Model
    existing: bool


class Fleet:
    """Every model of this runner.

    Args:
        means: what the supervisors work with; see `open_fleet`.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._supervisors: dict[str, Supervisor] = {}
        self._draining = False

    async def take_over(self, saved: list[Saved], unreadable: list[Unreadable]) -> None:
        """Go on with the models of the runner before this one; see `adoption`."""
        await take_over(saved, unreadable, self._means, self)

    # Reading.

    def get(self, model_id: str) -> Model:
        """The model as it is. Raises Fault: MODEL_NOT_FOUND."""
        return self.supervisor(model_id).model

    def list(self) -> list[Model]:
        """All of them, by id."""
        return [self._supervisors[model_id].model for model_id in sorted(self._supervisors)]

    def log(self, model_id: str) -> LogFile:
        """What the model's backend writes, of all its starts. Raises Fault: MODEL_NOT_FOUND."""
        return self.supervisor(model_id).log

    # Loading.

    async def load(
        self,
        spec: Spec,
        model_id: str = "",
        *,
        activation: Activation = Activation.ALWAYS,
        validate_only: bool = False,
    ) -> Loaded:
        """Begin to load, or join what is there.

        Args:
            spec: what to run.
            model_id: under which id; empty for the source's own name.
            activation: whether it becomes the active model when it is LOADED.
            validate_only: do every check and change nothing; the model answered has no uid.

        Raises:
            Fault: MODEL_ID_TAKEN, MODEL_UNLOADING, DRAINING, and what `make_plan` and `Snapshots.describe` raise.
        """
        model_id = model_id or spec.default_id
        if self._draining:
            raise Fault(Reason.DRAINING, "the runner is shutting down", retry_after=_UNLOADING_RETRY_SECONDS)
        self._refuse_while_unloading(model_id)
        devices = await anyio.to_thread.run_sync(self._means.devices)
        try:
            plan = await self._plan(spec, devices, joins=self._serving(model_id) is not None)
        except Fault as fault:
            serving = self._serving(model_id)
            if fault.reason is Reason.REGISTRY_UNAVAILABLE and serving is not None and serving.plan.asked == spec:
                return self._join(serving, validate_only=validate_only)
            raise
        # From here to the end nothing is awaited: two loads of one id cannot both find it free.
        self._refuse_while_unloading(model_id)
        if (serving := self._serving(model_id)) is not None:
            if differs := difference(serving.plan.identity, plan.identity):
                raise Fault(Reason.MODEL_ID_TAKEN, f"{model_id} runs with another spec: {differs}; choose another id")
            return self._join(serving, validate_only=validate_only)
        model = self._record(model_id, plan, activation)
        if validate_only:
            return Loaded(model=replace(model, uid=""), existing=False)
        self._means.reservations.reserve(model.uid, plan.needed, devices)
        return Loaded(model=self._begin(model, plan), existing=False)

    def _serving(self, model_id: str) -> Supervisor | None:
        """The model of that id unless it is in ERROR, where a load begins anew."""
        found = self._supervisors.get(model_id)
        return None if found is None or found.life.state is State.ERROR else found

    def _join(self, serving: Supervisor, *, validate_only: bool) -> Loaded:
        if not validate_only:
            serving.apply(states.Load())
        return Loaded(model=serving.model, existing=True)

    async def _plan(self, spec: Spec, devices: tuple[Device, ...], *, joins: bool) -> Plan:
        """What would be run. The memory that a model to be joined has already is not asked for twice."""
        available = self._means.reservations.available
        around = Surroundings(
            backends=self._means.backends,
            devices=devices,
            free={device.uuid: device.memory_total if joins else available(device) for device in devices},
            trust_remote_code=self._means.trust_remote_code,
        )
        if isinstance(spec.source, PathSource):
            return await anyio.to_thread.run_sync(self._plan_path, spec, spec.source, around)
        description = await self._means.snapshots.describe(spec.source)
        facts = ModelFacts(architecture=description.architecture, remote_code=description.remote_code)
        return make_plan(spec, description, lambda _: facts, around)

    def _plan_path(self, spec: Spec, source: PathSource, around: Surroundings) -> Plan:
        description, root = self._means.paths.describe(source)
        wanted = spec
        if not (spec.file or spec.variant) and not source.path.is_dir():
            wanted = replace(spec, file=source.path.name)
        return make_plan(wanted, description, lambda it: read_facts(root, str(it.files[0].path), it.format), around)

    def _record(self, model_id: str, plan: Plan, activation: Activation) -> Model:
        now = self._means.wall()
        return Model(
            id=model_id,
            uid=str(uuid.uuid4()),
            spec=plan.spec,
            state=State.LOADING,
            task=plan.task,
            commit=plan.commit,
            variant=plan.variant,
            backend=plan.backend,
            backend_version=plan.found.version,
            activation=activation,
            devices=tuple(device.uuid for device in plan.devices),
            planned_bytes=plan.planned_bytes,
            registry_bypassed=plan.registry_bypassed,
            create_time=now,
            update_time=now,
        )

    def _begin(self, model: Model, plan: Plan) -> Model:
        if (failed := self._supervisors.get(model.id)) is not None:
            failed.renew(model, plan)
            return failed.model
        life, commands = states.fresh()
        supervisor = Supervisor(model, life, plan, self._means, self)
        self.take_in(supervisor)
        supervisor.begin(commands)
        return supervisor.model

    def _refuse_while_unloading(self, model_id: str) -> None:
        existing = self._supervisors.get(model_id)
        if existing is not None and existing.life.state is State.UNLOADING:
            raise Fault(
                Reason.MODEL_UNLOADING,
                f"{model_id} is being unloaded; load it again when it is gone",
                retry_after=_UNLOADING_RETRY_SECONDS,
            )

    # Stopping.

    def unload(self, model_id: str, *, drain_seconds: float | None = None) -> Model:
        """Have a model stopped; it is UNLOADING when this returns, and gone later. A second call joins.

        Args:
            model_id: which.
            drain_seconds: how long requests in flight may take; None is the runner's setting.

        Raises:
            Fault: MODEL_NOT_FOUND.
        """
        supervisor = self.supervisor(model_id)
        supervisor.unload(drain_seconds)
        return supervisor.model

    async def shutdown(self, *, keep_models: bool = False) -> None:
        """Stop all models at once and wait for it, or leave them running for the next runner."""
        self._draining = True
        if keep_models:
            await self.leave()
            return
        supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.unload()
        with anyio.move_on_after(self._means.numbers.shutdown):
            for supervisor in supervisors:
                await supervisor.gone.wait()
        await self._means.scribe.flush()

    async def leave(self) -> None:
        """Look after no model any more, and stop none."""
        for supervisor in self._supervisors.values():
            supervisor.leave()
        with anyio.CancelScope(shield=True):
            await self._means.scribe.flush()

    def take_in(self, supervisor: Supervisor) -> None:
        """There is a model more."""
        self._supervisors[supervisor.model.id] = supervisor

    def forget(self, supervisor: Supervisor) -> None:
        """The model is no more; its supervisor says so."""
        if self._supervisors.get(supervisor.model.id) is supervisor:
            del self._supervisors[supervisor.model.id]

    # The active models.

    def active(self, task: Task) -> Model:
        """The active model of a task. Raises Fault: NO_ACTIVE_MODEL."""
        model_id = self._means.active.get(task)
        if model_id is None or model_id not in self._supervisors:
            raise Fault(Reason.NO_ACTIVE_MODEL, f"no model is active for {task}; load one or set one")
        return self._supervisors[model_id].model

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
        supervisor = self.supervisor(model_id)
        model = supervisor.model
        if task not in {None, model.task}:
            raise Fault(Reason.INVALID_FIELDS, f"{model_id} serves {model.task}, not {task}")
        if supervisor.life.state is not State.LOADED:
            raise Fault(
                Reason.MODEL_NOT_LOADED, f"{model_id} is {supervisor.life.state}; only a LOADED model can be active"
            )
        before = self._means.active.set(model.task, model_id, expected)
        self.active_changed(before, model_id)
        return before

    def active_changed(self, before: str | None, after: str | None) -> None:
        """Write down which models are active, and tell it of those two."""
        self._means.scribe.save_active(self._means.active.all())
        for model_id in (before, after):
            if model_id in self._supervisors:
                self._supervisors[model_id].show_active()

    def supervisor(self, model_id: str) -> Supervisor:
        """Who looks after the model. Raises Fault: MODEL_NOT_FOUND."""
        if (supervisor := self._supervisors.get(model_id)) is None:
            known = ", ".join(sorted(self._supervisors)) or "none"
            raise Fault(Reason.MODEL_NOT_FOUND, f"there is no model {model_id}; models here: {known}")
        return supervisor


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
    memory_returned: MemoryReturned = no_device_memory,
    trust_remote_code: bool = False,
    operator_environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """The models of the runner whose state lies in `state_dir`, those of its predecessor adopted.

    Leaving the context without `shutdown` leaves the backends running, as a crash would.

    Raises:
        JournalInUse: another runner has that state directory.
    """
    scribe, instance, history = await anyio.to_thread.run_sync(_open_state, state_dir)
    saved, unreadable, active = await anyio.to_thread.run_sync(scribe.read)
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
            active=ActiveModels(active),
            slots=anyio.CapacityLimiter(numbers.loads_at_once),
            members=MemberScan(numbers.member_scan),
            reservations=Reservations(),
            devices=devices,
            snapshots=snapshots or NoRegistry(),
            paths=paths or LocalPaths(),
            drain=drain,
            memory_returned=memory_returned,
            cgroup_root=cgroup.find_root(instance),
            trust_remote_code=trust_remote_code,
            operator_environment=operator_environment or {},
        )
        tasks.start_soon(scribe.run)
        tasks.start_soon(means.members.run)
        fleet = Fleet(means)
        await fleet.take_over(saved, unreadable)
        try:
            yield fleet
        finally:
            await fleet.leave()
            scribe.close()
            means.ports.close()
            tasks.cancel_scope.cancel()


def _open_state(state_dir: Path) -> tuple[Scribe, str, History]:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Scribe(state_dir / "journal"), read_instance(state_dir), History(state_dir / "history.json")
