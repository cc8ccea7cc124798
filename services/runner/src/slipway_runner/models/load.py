"""How a load begins: joined, refused, or planned, with room made for it."""

from dataclasses import dataclass, replace

import anyio
from slipway_service.fault import Fault, FieldViolation, Reason

from slipway_runner.models import states
from slipway_runner.models.gate import Gate
from slipway_runner.models.means import Means
from slipway_runner.models.plan import Plan
from slipway_runner.models.planning import Planner, ask_source, new_record, plan_with_room, removable_for_room
from slipway_runner.models.record import Activation, Model
from slipway_runner.models.roster import Roster
from slipway_runner.models.spec import Spec, difference
from slipway_runner.models.supervisor import Supervisor
from slipway_runner.models.usage import UseOf, refresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a load was asked for; see `Fleet.load`."""

    spec: Spec
    model_id: str
    activation: Activation = Activation.ALWAYS
    evict: bool = False
    replaces: str = ""
    unload_first: bool = False
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The answer to a load.

    Attributes:
        existing: it was there already, loaded or on its way, with an equal spec.
        evicted: ids of models that are unloaded to make room for it.
    """

    model: Model
    existing: bool
    evicted: tuple[str, ...] = ()


class Load:
    """One load on its way to its supervisor."""

    def __init__(self, order: Order, roster: Roster, means: Means, use_of: UseOf, gate: Gate) -> None:
        self._order = order
        self._gate = gate
        self._roster = roster
        self._means = means
        self._use_of = use_of

    async def begin(self) -> Loaded:
        """Join, or plan and begin. Raises what `Fleet.load` raises."""
        order = self._order
        if self._roster.serving(order.model_id) is None:
            self._gate.check()
        replaced = self._replaced()
        try:
            planner = await ask_source(order.spec, self._means)
        except Fault as fault:
            return self._join_unasked(fault, replaced)
        if (joined := self._join_alike(planner.commit, replaced)) is not None:
            return joined
        if self._roster.serving(order.model_id) is not None:
            wanted = await anyio.to_thread.run_sync(planner.plan, planner.total)
            if (joined := self._join(wanted, replaced)) is not None:
                return joined
        while True:
            removable, unclaimed = await self._removable(replaced), planner.attainable
            try:
                plan, count = await plan_with_room(planner, [one.plan for one in removable])
            except Fault:
                if (joined := self._join_alike(planner.commit, replaced)) is not None:
                    return joined  # the same load came first, and has what this one lacks
                raise
            # From here to the end nothing is awaited: two loads of one id cannot both find it free.
            if (joined := self._join(plan, replaced)) is not None:
                return joined
            if planner.attainable == unclaimed:
                return self._start(planner, plan, removable[:count], replaced)
            # Another load may have taken what this one counts on, and have it by now.
            planner = replace(planner, devices=await anyio.to_thread.run_sync(self._means.devices))

    def _replaced(self) -> Supervisor | None:
        if self._order.replaces == self._order.model_id:
            text = f"{self._order.model_id} cannot replace itself; choose another id"
            raise Fault(Reason.INVALID_FIELDS, text, fields=(FieldViolation("replaces", text),))
        return self._roster.get(self._order.replaces) if self._order.replaces else None

    def _join_unasked(self, fault: Fault, replaced: Supervisor | None) -> Loaded:
        """Join what was asked for in the same words, though the registry is away; else raise `fault`."""
        serving = self._roster.serving(self._order.model_id)
        if fault.reason is not Reason.REGISTRY_UNAVAILABLE or serving is None:
            raise fault
        if serving.plan.asked != self._order.spec:
            raise fault
        return self._joined(serving, replaced)

    def _join_alike(self, commit: str, replaced: Supervisor | None) -> Loaded | None:
        """Join the model that came of the same words and commit: what was chosen for it depends on what was free."""
        serving = self._roster.serving(self._order.model_id)
        if serving is None or serving.plan.asked != self._order.spec or serving.plan.commit != commit:
            return None
        return self._joined(serving, replaced)

    def _join(self, plan: Plan, replaced: Supervisor | None) -> Loaded | None:
        """Join the model of that id, if there is one.

        Raises Fault: MODEL_ID_TAKEN, MODEL_UNLOADING, MODEL_NOT_LOADED.
        """
        if (serving := self._roster.serving(self._order.model_id)) is None:
            return None
        if (alike := self._join_alike(plan.commit, replaced)) is not None:
            return alike
        if differs := difference(serving.plan.identity, plan.identity):
            text = f"{self._order.model_id} runs with another spec: {differs}; choose another id"
            raise Fault(Reason.MODEL_ID_TAKEN, text)
        return self._joined(serving, replaced)

    def _joined(self, serving: Supervisor, replaced: Supervisor | None) -> Loaded:
        if replaced is not None and not serving.may_take_over(replaced):
            text = f"{serving.model.id} is {serving.life.state}, and can replace {replaced.model.id} when it is LOADED"
            raise Fault(Reason.MODEL_NOT_LOADED, text)
        if not self._order.validate_only:
            serving.apply(states.Load())
            if replaced is not None:
                serving.take_over(replaced)
        return Loaded(model=serving.model, existing=True)

    async def _removable(self, replaced: Supervisor | None) -> list[Supervisor]:
        """Who may go to make room, in their order."""
        first = [replaced] if replaced is not None and self._order.unload_first else []
        if not self._order.evict:
            return first
        await refresh(self._roster, self._use_of)
        others = [self._roster.get(one) for one in removable_for_room([each.model for each in self._roster])]
        return [*first, *(one for one in others if one is not replaced)]

    def _start(self, planner: Planner, plan: Plan, leaving: list[Supervisor], replaced: Supervisor | None) -> Loaded:
        self._gate.check()  # it may have been closed while the registry was asked
        order = self._order
        model = new_record(order.model_id, plan, order.activation, self._means.wall())
        if replaced is not None:
            wish = Activation.ALWAYS if replaced.model.active_for(plan.task) else order.activation
            model = replace(model, activation=wish, replaces=replaced.model.uid)
        evicted = tuple(one.model.id for one in leaving)
        if order.validate_only:
            return Loaded(model=replace(model, uid=""), existing=False, evicted=evicted)
        if leaving:
            self._means.reservations.claim(model.uid, plan.needed, waits=True)
        else:
            self._means.reservations.reserve(model.uid, plan.needed, planner.devices)
        try:
            self._means.make_folder(model.uid)
        except Fault:
            self._means.reservations.release(model.uid)
            raise
        for one in leaving:
            one.unload(why=f"it makes room for {order.model_id}")
        return Loaded(model=self._supervise(model, plan, tuple(leaving)), existing=False, evicted=evicted)

    def _supervise(self, model: Model, plan: Plan, waits_for: tuple[Supervisor, ...]) -> Model:
        if (failed := self._roster.find(model.id)) is not None:
            failed.renew(model, plan, waits_for)
            return failed.model
        life, commands = states.fresh()
        supervisor = Supervisor(model, life, plan, self._means, self._roster, waits_for)
        self._roster.take_in(supervisor)
        supervisor.begin(commands)
        return supervisor.model
