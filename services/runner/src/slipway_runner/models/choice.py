"""Choosing what will be run, of what was asked for and what is there: variant, task, backend, devices."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from slipway_service.fault import Fault, FieldViolation, Reason
from slipway_service.weights import selection
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.task import detect_task
from slipway_service.weights.variant import Variant
from slipway_service.weights.variants import default_of, find_variants, preferred_projector

from slipway_runner.backends import select
from slipway_runner.backends.base import Found, Task
from slipway_runner.backends.tasks import default_task
from slipway_runner.devices.device import Device
from slipway_runner.models.placement import candidates, placed
from slipway_runner.models.plan import Plan, Surroundings
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import Spec

FactsOf = Callable[[Variant], ModelFacts]
"""What is known of a variant before it is fetched; may read a header."""


def make_plan(spec: Spec, description: Description, facts_of: FactsOf, around: Surroundings) -> Plan:
    """Choose. The variant that nobody asked for is the one that a backend here can run.

    Raises:
        Fault: VARIANT_NOT_FOUND, MODEL_FILE_MISSING, BACKEND_UNAVAILABLE, BACKEND_UNSUITABLE, REMOTE_CODE_REQUIRED,
            DEVICE_NOT_FOUND, DEVICE_MEMORY_INSUFFICIENT, INVALID_FIELDS.
    """
    refusal: Fault | None = None
    for variant in _variants(spec, description):
        try:
            return _plan(spec, description, variant, facts_of(variant), around)
        except Fault as fault:
            refusal = refusal or fault  # the best variant's says most
    assert refusal is not None, "there is always a variant, or why there is none"
    raise refusal


def _plan(spec: Spec, description: Description, variant: Variant, facts: ModelFacts, around: Surroundings) -> Plan:
    draft = _draft(spec, description, variant, facts)
    refusal: Fault | None = None
    for devices in candidates(spec, around.devices):
        try:
            choice = select.choose(
                around.backends.adapters,
                around.backends.found,
                draft.files(Path("/")),
                draft.task,
                devices,
                wanted=spec.backend,
                trust_remote_code=around.trust_remote_code,
            )
        except Fault as fault:
            refusal = refusal or fault
            continue
        needed = placed(draft.memory(facts, choice.backend), spec, choice.found, devices, around.devices, around.free)
        used = tuple(device for device in devices if device.uuid in needed)
        filled = replace(draft.spec, backend=choice.backend.name)
        return replace(draft, spec=filled, found=choice.found, devices=used, needed=needed)
    assert refusal is not None, "the CPU is always a candidate"
    raise refusal


def place_again(plan: Plan, everything: tuple[Device, ...], free: Mapping[str, int]) -> Plan:
    """The same on devices of the same kind that have room for what it is now known to need.

    Raises:
        Fault: DEVICE_MEMORY_INSUFFICIENT; DEVICE_NOT_FOUND, one that was asked for is there no more.
    """
    kinds = {device.kind for device in plan.devices}
    every = candidates(plan.asked, everything)
    devices = next((one for one in every if {device.kind for device in one} == kinds), plan.devices)
    needed = placed(plan.planned_bytes, plan.asked, plan.found, devices, everything, free)
    return replace(plan, devices=tuple(device for device in devices if device.uuid in needed), needed=needed)


def _draft(spec: Spec, description: Description, variant: Variant, facts: ModelFacts) -> Plan:
    """All but the backend and its place."""
    projector = preferred_projector(variant)
    selected = selection.select(description.files, (variant,), selection.VariantSelection(variant.name))
    plan = Plan(
        asked=spec,
        spec=spec,
        name=description.name,
        commit=description.commit,
        variant=variant.name,
        format=variant.format,
        wanted=tuple(str(file.path) for file in selected.files),
        weights=tuple(str(file.path) for file in variant.files),
        mmproj=str(projector.path) if projector else "",
        size_bytes=variant.size_bytes + (projector.size_bytes if projector else 0),
        architecture=facts.architecture,
        remote_code=facts.remote_code,
        ranks=facts.pooling == "RANK",
        task=Task.GENERATE,
        found=_NOT_CHOSEN,
        registry_bypassed=description.registry_bypassed,
    )
    task = spec.task or guess_task(description, plan, facts)
    named = spec.variant or ("" if spec.file else variant.name)
    return replace(plan, task=task, spec=replace(spec, variant=named, task=task))


# Stands in until one is; never seen outside.
_NOT_CHOSEN = Found(backend="", version="", program=(), kinds=frozenset())


def guess_task(description: Description, plan: Plan, facts: ModelFacts) -> Task:
    """What a model is for, when nobody says: what files, tags and names tell, else what its architecture can do."""
    detected = detect_task(
        name=f"{plan.spec.default_id} {plan.weights[0]}",  # of a path not the folders above it
        pipeline_tag=description.pipeline_tag,
        architecture=facts.architecture,
        pooling=facts.pooling,
        labels=facts.labels,
        paths=[str(file.path) for file in description.files],
    )
    return Task(detected.value.lower()) if detected else default_task(plan.files(Path("/")))


def _variants(spec: Spec, description: Description) -> Iterator[Variant]:
    """The variant asked for; or the default one, and after it the best of each other format."""
    variants = find_variants(description.files)
    if spec.file or spec.variant:
        yield _asked_for(spec, variants, description)
        return
    if default_of(variants) is None:
        raise _nothing_whole(variants, description)
    rest = list(variants)
    while (best := default_of(rest)) is not None:
        yield best
        rest = [variant for variant in rest if variant.format is not best.format]


def _asked_for(spec: Spec, variants: tuple[Variant, ...], description: Description) -> Variant:
    field = "spec.file" if spec.file else "spec.variant"
    for variant in variants:
        if variant.name == spec.variant or any(file.path == spec.file for file in variant.files):
            if variant.missing:
                raise _nothing_whole((variant,), description, field)
            return variant
    known = ", ".join(variant.name for variant in variants) or "none"
    wanted = spec.variant or spec.file
    text = f"{description.name} has no {wanted}; its variants: {known}"
    raise Fault(Reason.VARIANT_NOT_FOUND, text, fields=(FieldViolation(field, text),), resource=wanted)


def _nothing_whole(variants: tuple[Variant, ...], description: Description, field: str = "") -> Fault:
    if missing := [path for variant in variants for path in variant.missing]:
        text = f"{description.name} lacks {', '.join(missing)}"
        fields = (FieldViolation(field, text),) if field else ()
        return Fault(Reason.MODEL_FILE_MISSING, text, fields=fields, resource=missing[0])
    text = f"{description.name} has no weights in a format that is known here"
    return Fault(Reason.VARIANT_NOT_FOUND, text, resource=description.name)
