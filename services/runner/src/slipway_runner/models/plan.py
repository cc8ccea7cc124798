"""From what was asked for and what is there to what will be run: variant, files, task, backend, devices."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from slipway_service.fault import Fault, Reason
from slipway_service.weights import selection
from slipway_service.weights.memory import context_for, estimate
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.task import detect_task
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.variants import default_of, find_variants, preferred_projector

from slipway_runner.backends import select
from slipway_runner.backends.base import Backend, Format, Found, ModelFiles, NotUsable, Task
from slipway_runner.backends.tasks import default_task
from slipway_runner.devices.device import Device
from slipway_runner.models.placement import candidates, placed
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import RepoSource, Spec

_FORMATS: Mapping[WeightFormat, Format] = {
    WeightFormat.GGUF: Format.GGUF,
    WeightFormat.SAFETENSORS: Format.SAFETENSORS,
    WeightFormat.PYTORCH: Format.PYTORCH,
    WeightFormat.ONNX: Format.ONNX,
}

FactsOf = Callable[[Variant], ModelFacts]
"""What is known of a variant before it is fetched; may read a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The backends that the runner knows, and what `select.find_all` says of each by its name."""

    adapters: tuple[Backend, ...]
    found: Mapping[str, Found | NotUsable]

    @property
    def usable(self) -> Mapping[str, tuple[Backend, Found]]:
        """Those that this host can run."""
        return {one.name: (one, it) for one in self.adapters if isinstance(it := self.found[one.name], Found)}

    @property
    def unusable(self) -> Mapping[str, NotUsable]:
        """The others, with the reason."""
        return {name: it for name, it in self.found.items() if isinstance(it, NotUsable)}

    def adapter(self, name: str) -> Backend:
        """The backend of that name, usable or not. Raises KeyError."""
        return {one.name: one for one in self.adapters}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plan depends on besides the model.

    Attributes:
        devices: as they are now, the CPU among them.
        free: bytes of each that nobody uses or has claimed, by uuid.
    """

    backends: Backends
    devices: tuple[Device, ...]
    free: Mapping[str, int]
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be run.

    Attributes:
        asked: the spec as it came.
        spec: the same with its defaults filled in.
        commit: what the revision resolved to; empty for a path.
        variant: the name of the weights' variant.
        wanted: every file that the backend needs, relative to the source's root.
        weights: those of `wanted` that are weights, in their order.
        devices: what it may use; empty is the CPU.
        needed: bytes of memory it is expected to take, by the device's uuid (`cpu` for main memory).
        registry_bypassed: described by the cache because the registry is away.
    """

    asked: Spec
    spec: Spec
    name: str
    commit: str = ""
    variant: str
    format: WeightFormat
    wanted: tuple[str, ...]
    weights: tuple[str, ...]
    mmproj: str = ""
    size_bytes: int
    architecture: str = ""
    remote_code: bool = False
    ranks: bool = False
    task: Task
    found: Found
    devices: tuple[Device, ...] = ()
    needed: Mapping[str, int] = field(default_factory=dict)
    registry_bypassed: bool = False

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.found.backend

    @property
    def planned_bytes(self) -> int:
        """Memory that it is expected to take, everywhere together."""
        return sum(self.needed.values())

    @property
    def identity(self) -> Spec:
        """The spec to compare with others: its revision resolved, its weights by the name of their variant."""
        source = self.spec.source
        if isinstance(source, RepoSource):
            source = replace(source, revision=self.commit)
        return replace(self.spec, source=source, variant=self.variant, file="")

    def knowing(self, facts: ModelFacts) -> "Plan":
        """The same, with what the files themselves say."""
        return replace(
            self,
            architecture=facts.architecture or self.architecture,
            remote_code=facts.remote_code or self.remote_code,
            ranks=facts.pooling == "RANK" or self.ranks,
        )

    def files(self, root: Path) -> ModelFiles:
        """The files, below `root`."""
        return ModelFiles(
            name=self.name,
            root=root,
            format=_FORMATS[self.format],
            weights=tuple(root / path for path in self.weights),
            size_bytes=self.size_bytes,
            mmproj=root / self.mmproj if self.mmproj else None,
            architecture=self.architecture,
            remote_code=self.remote_code,
            ranks=self.ranks,
        )


def make_plan(spec: Spec, description: Description, facts_of: FactsOf, around: Surroundings) -> Plan:
    """Choose. The variant that nobody asked for is the one that a backend here can run.

    Raises:
        Fault: VARIANT_NOT_FOUND, MODEL_FILE_MISSING, BACKEND_UNAVAILABLE, BACKEND_UNSUITABLE, REMOTE_CODE_REQUIRED,
            DEVICE_NOT_FOUND, DEVICE_MEMORY_INSUFFICIENT.
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
        needed = placed(_memory(spec, variant, facts), spec, choice.found, devices, around.devices, around.free)
        used = tuple(device for device in devices if device.uuid in needed)
        filled = replace(draft.spec, backend=choice.backend.name)
        return replace(draft, spec=filled, found=choice.found, devices=used, needed=needed)
    assert refusal is not None, "the CPU is always a candidate"
    raise refusal


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


def _memory(spec: Spec, variant: Variant, facts: ModelFacts) -> int:
    projector = preferred_projector(variant)
    weights = variant.size_bytes + (projector.size_bytes if projector else 0)
    tokens = context_for(spec.settings.context_length or 0, facts.context_length)
    return estimate(weights, facts.cache, tokens).total_bytes


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
    for variant in variants:
        if variant.name == spec.variant or any(file.path == spec.file for file in variant.files):
            if variant.missing:
                raise _nothing_whole((variant,), description)
            return variant
    known = ", ".join(variant.name for variant in variants) or "none"
    raise Fault(
        Reason.VARIANT_NOT_FOUND, f"{description.name} has no {spec.variant or spec.file}; its variants: {known}"
    )


def _nothing_whole(variants: tuple[Variant, ...], description: Description) -> Fault:
    if missing := [path for variant in variants for path in variant.missing]:
        return Fault(Reason.MODEL_FILE_MISSING, f"{description.name} lacks {', '.join(missing)}")
    return Fault(Reason.VARIANT_NOT_FOUND, f"{description.name} has no weights in a format that is known here")
