"""From a spec to a plan: ask the source what it holds, choose, and see what must go to make room."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from slipway_service.fault import Fault, Reason
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.variant import Variant

from slipway_runner.devices.device import Device
from slipway_runner.models.choice import make_plan
from slipway_runner.models.facts import read_facts
from slipway_runner.models.means import Means
from slipway_runner.models.plan import Plan, Surroundings
from slipway_runner.models.record import Activation, Model
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State

Free = Mapping[str, int]
"""Bytes that nobody uses or has claimed, by the device's uuid."""


@dataclass(frozen=True, slots=True)
class Planner:
    """What is known of a source, and how plans are made of it. Making one may read headers: it blocks, milliseconds.

    Attributes:
        commit: what the revision means now; empty for a path.
    """

    spec: Spec
    commit: str
    devices: tuple[Device, ...]
    _make: Callable[[Surroundings], Plan]
    _means: Means

    def plan(self, free: Free) -> Plan:
        """What would be run with so much memory free. Raises what `make_plan` and `rehearse` raise."""
        around = Surroundings(
            backends=self._means.backends,
            devices=self.devices,
            free=free,
            trust_remote_code=self._means.trust_remote_code,
        )
        plan = self._make(around)
        rehearse(plan, self._means)
        return plan

    @property
    def free(self) -> Free:
        """What is free now, less what loads under way have claimed."""
        return {device.uuid: self._means.reservations.available(device) for device in self.devices}

    @property
    def attainable(self) -> Free:
        """What could be free at most, were every model gone that holds memory now."""
        return {device.uuid: self._means.reservations.attainable(device) for device in self.devices}

    @property
    def total(self) -> Free:
        """All there is: for a model that has its memory already."""
        return {device.uuid: device.memory_total for device in self.devices}


# Stands in for what a load has only when its process is started.
_NOWHERE = Path("/nonexistent")


def rehearse(plan: Plan, means: Means) -> None:
    """Have the backend make its command line, so that what it refuses is refused before anything is fetched.

    Raises:
        Fault: what `Backend.launch` raises.
    """
    launch = plan.launch(_NOWHERE, served_name="rehearsal", port=1, api_key="", scratch=_NOWHERE, house=means)
    means.backends.adapter(plan.backend).launch(launch)


async def ask_source(spec: Spec, means: Means) -> Planner:
    """Find out what there is to choose from.

    Raises:
        Fault: PATH_NOT_ALLOWED, MODEL_FILE_MISSING, and what `Snapshots.describe` raises.
    """
    devices = await anyio.to_thread.run_sync(means.devices)
    if isinstance(spec.source, PathSource):
        description, root = await anyio.to_thread.run_sync(means.paths.describe, spec.source)
        wanted = spec
        if not (spec.file or spec.variant) and not description.folder:
            wanted = replace(spec, file=spec.source.path.name)

        def make(around: Surroundings) -> Plan:
            made = make_plan(wanted, description, lambda it: read_facts(root, str(it.files[0].path), it.format), around)
            return replace(made, asked=spec)

        return Planner(spec, "", devices, make, means)
    found = await means.snapshots.describe(spec.source)
    return Planner(spec, found.commit, devices, lambda around: _of_repo(spec, found, around), means)


# Nobody knows when it is back; its restart takes seconds.
_REGISTRY_RETRY_SECONDS = 5.0


def _of_repo(spec: Spec, found: Description, around: Surroundings) -> Plan:
    """Raises Fault: what `make_plan` raises; REGISTRY_UNAVAILABLE, only the registry knows of files like these."""
    try:
        return make_plan(spec, found, lambda it: _facts(found, it), around)
    except Fault as fault:
        if not found.registry_bypassed or fault.reason not in {Reason.VARIANT_NOT_FOUND, Reason.MODEL_FILE_MISSING}:
            raise
        text = f"the registry does not answer, and in the cache of this host {fault.text}"
        raise Fault(Reason.REGISTRY_UNAVAILABLE, text, retry_after=_REGISTRY_RETRY_SECONDS) from fault


def _facts(description: Description, variant: Variant) -> ModelFacts:
    """What its description says, and how much memory its context takes where the header has been fetched already.

    No more is taken from the header: a model must not become another one (of another task) by being fetched.
    """
    known = ModelFacts(architecture=description.architecture, remote_code=description.remote_code)
    if description.root is None:
        return known
    header = read_facts(description.root, str(variant.files[0].path), variant.format)
    return replace(known, context_length=header.context_length, cache=header.cache)


async def plan_with_room(planner: Planner, removable: Sequence[Plan]) -> tuple[Plan, int]:
    """Make a plan for what is free, or for what would be if models were unloaded.

    Args:
        planner: of the model to be loaded.
        removable: plans of the models that may go for it, those to go first at the front.

    Returns:
        The plan, and how many of `removable` must go.

    Raises:
        Fault: DEVICE_MEMORY_INSUFFICIENT though all of them went; and what `make_plan` raises.
    """
    free, attainable = dict(planner.free), planner.attainable
    for count, leaving in enumerate((*removable, None)):
        try:
            return await anyio.to_thread.run_sync(planner.plan, free), count
        except Fault as fault:
            if fault.reason is not Reason.DEVICE_MEMORY_INSUFFICIENT or leaving is None:
                raise
        for device in leaving.needed.keys() & free.keys():
            # What it maps from files is free already.
            free[device] = min(free[device] + leaving.needed[device], attainable[device])
    raise AssertionError("the last round returns or raises")


def removable_for_room(models: Sequence[Model]) -> list[str]:
    """Ids of the models that may be unloaded to make room, the least recently used first.

    Never one that is pinned or active, or not LOADED: what is on its way has been asked for just now.
    """
    may_go = [one for one in models if one.state is State.LOADED and not one.spec.pinned and not one.active]
    return [model.id for model in sorted(may_go, key=_last_use)]


def _last_use(model: Model) -> float:
    return max(model.use_time or 0.0, model.load_time or 0.0)


def new_record(model_id: str, plan: Plan, activation: Activation, now: float) -> Model:
    """The record of a load that begins."""
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
