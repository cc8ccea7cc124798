"""From what was asked for and what is there to what will be run: variant, files, task, backend, devices. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from slipway_service.fault import Fault, Precondition, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.variants import default_of, find_variants, preferred_projector

from slipway_runner.backends.base import Backend, Format, Found, ModelFiles, NotUsable, Task
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.models.snapshots import Description
from slipway_runner.models.spec import RepoSource, Spec

_FORMATS: Mapping[WeightFormat, Format] = {
    WeightFormat.GGUF: Format.GGUF,
    WeightFormat.SAFETENSORS: Format.SAFETENSORS,
    WeightFormat.PYTORCH: Format.PYTORCH,
    WeightFormat.ONNX: Format.ONNX,
}

_PIPELINES: Mapping[str, Task] = {
    "text-generation": Task.GENERATE,
    "image-text-to-text": Task.GENERATE,
    "feature-extraction": Task.EMBED,
    "sentence-similarity": Task.EMBED,
    "text-ranking": Task.RERANK,
}

# Architectures that are made for embeddings, as GGUF headers call them (llama.cpp, src/llama-arch.cpp).
_EMBEDDERS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "gemma-embedding")

# What duplicates the weights for another framework; a backend never reads it.
_OTHER_FRAMEWORKS = (".msgpack", ".h5", ".ot", ".onnx", ".onnx_data", ".mlmodel", ".tflite", ".pb", ".gguf")

# Room beside the weights for caches and buffers when the header says nothing: a tenth, and a quarter of a GiB.
_OVERHEAD_SHARE = 10
_OVERHEAD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The backends of this host by name, and why others are not usable."""

    usable: Mapping[str, tuple[Backend, Found]]
    unusable: Mapping[str, NotUsable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be run.

    Attributes:
        spec: as asked for, with its defaults filled in.
        commit: what the revision resolved to; empty for a path.
        wanted: every file that the backend needs, relative to the source's root.
        weights: those of `wanted` that are weights, in their order.
        devices: what it may use; empty is the CPU.
        planned_bytes: memory it is expected to take.
        registry_bypassed: described by the cache because the registry is away.
    """

    spec: Spec
    name: str
    commit: str = ""
    variant: str
    format: Format
    wanted: tuple[str, ...]
    weights: tuple[str, ...]
    mmproj: str = ""
    size_bytes: int
    architecture: str = ""
    remote_code: bool = False
    task: Task
    found: Found
    devices: tuple[Device, ...] = ()
    planned_bytes: int
    registry_bypassed: bool = False

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.found.backend

    @property
    def identity(self) -> Spec:
        """The spec to compare with others: its revision resolved, its weights by the name of their variant."""
        source = self.spec.source
        if isinstance(source, RepoSource):
            source = replace(source, revision=self.commit)
        return replace(self.spec, source=source, variant=self.variant, file="")

    def files(self, root: Path) -> ModelFiles:
        """The files, below `root`."""
        return ModelFiles(
            name=self.name,
            root=root,
            format=self.format,
            weights=tuple(root / path for path in self.weights),
            size_bytes=self.size_bytes,
            mmproj=root / self.mmproj if self.mmproj else None,
            architecture=self.architecture,
            remote_code=self.remote_code,
        )


def make_plan(spec: Spec, description: Description, backends: Backends, devices: tuple[Device, ...]) -> Plan:
    """Choose.

    Args:
        spec: what was asked for.
        description: what the source holds.
        backends: what this host can run.
        devices: what it has, the CPU among them.

    Raises:
        Fault: VARIANT_NOT_FOUND, MODEL_FILE_MISSING, BACKEND_UNAVAILABLE, BACKEND_UNSUITABLE, DEVICE_NOT_FOUND,
            DEVICE_MEMORY_INSUFFICIENT.
    """
    variants = find_variants(description.files)
    reasons: list[str] = []
    for variant in _candidates(spec, variants, description):
        task = spec.task or guess_task(description, variant)
        for backend, found in _in_order(spec.backend, backends, variant.format, task, devices):
            plan = _plan(spec, description, variants, variant, task, found)
            chosen = _choose_devices(plan, found, devices)
            why_not = backend.suits(found, plan.files(Path("/")), task, chosen)
            if why_not is None:
                _check_memory(plan, chosen, devices)
                return replace(plan, devices=chosen)
            reasons.append(f"{found.backend} with {variant.name}: {why_not}")
    reasons += [f"{name}: {gone.why}" for name, gone in backends.unusable.items() if spec.backend in {"", name}]
    raise Fault(Reason.BACKEND_UNSUITABLE, f"no backend here can run {description.name}: {'; '.join(reasons)}")


def guess_task(description: Description, variant: Variant) -> Task:
    """What a model is for, when nobody says: from the Hub's tag, else its architecture, else its name."""
    if (task := _PIPELINES.get(description.pipeline_tag)) is not None:
        return task
    name = f"{description.name} {variant.files[0].path}".lower()
    if "rerank" in name or description.architecture.endswith("ForSequenceClassification"):
        return Task.RERANK
    if "embed" in name or description.architecture in _EMBEDDERS or description.architecture.endswith("BertModel"):
        return Task.EMBED
    return Task.GENERATE


def _candidates(spec: Spec, variants: tuple[Variant, ...], description: Description) -> Iterator[Variant]:
    """The variant asked for; or the default one, and then the best of each other format."""
    if spec.file or spec.variant:
        yield _asked_for(spec, variants, description)
        return
    rest = list(variants)
    while (best := default_of(rest)) is not None:
        yield best
        rest = [variant for variant in rest if variant.format is not best.format]
    if not any(not variant.missing for variant in variants):
        missing = [path for variant in variants for path in variant.missing]
        if missing:
            raise Fault(Reason.MODEL_FILE_MISSING, f"{description.name} lacks {', '.join(missing)}")
        raise Fault(Reason.VARIANT_NOT_FOUND, f"{description.name} has no weights that any backend knows")


def _asked_for(spec: Spec, variants: tuple[Variant, ...], description: Description) -> Variant:
    for variant in variants:
        if variant.name == spec.variant or any(file.path == spec.file for file in variant.files):
            if variant.missing:
                raise Fault(Reason.MODEL_FILE_MISSING, f"{description.name} lacks {', '.join(variant.missing)}")
            return variant
    known = ", ".join(variant.name for variant in variants) or "none"
    raise Fault(
        Reason.VARIANT_NOT_FOUND, f"{description.name} has no {spec.variant or spec.file}; its variants: {known}"
    )


def _in_order(
    asked_for: str, backends: Backends, weights: WeightFormat, task: Task, devices: tuple[Device, ...]
) -> list[tuple[Backend, Found]]:
    if asked_for:
        if (found := backends.usable.get(asked_for)) is not None:
            return [found]
        gone = backends.unusable.get(asked_for)
        known = ", ".join(sorted([*backends.usable, *backends.unusable])) or "none"
        why = gone.why if gone is not None else f"this runner knows: {known}"
        raise Fault(Reason.BACKEND_UNAVAILABLE, f"{asked_for} is not usable here: {why}")
    wished = _preference(backends, weights, task, devices)
    rest = sorted(name for name in backends.usable if name not in wished)
    return [backends.usable[name] for name in (*wished, *rest) if name in backends.usable]


def _preference(backends: Backends, weights: WeightFormat, task: Task, devices: tuple[Device, ...]) -> tuple[str, ...]:
    if weights is WeightFormat.GGUF:
        return ("llama-server",)
    if task is not Task.GENERATE:
        return ("vllm", "infinity")
    vllm = backends.usable.get("vllm")
    accelerated = vllm is not None and any(
        device.kind in vllm[1].kinds for device in devices if device.kind is not DeviceKind.CPU and device.usable
    )
    return ("vllm", "sglang", "transformers") if accelerated else ("transformers", "vllm", "sglang")


def _plan(
    spec: Spec, description: Description, variants: tuple[Variant, ...], variant: Variant, task: Task, found: Found
) -> Plan:
    projector = preferred_projector(variant)
    weights = tuple(str(file.path) for file in variant.files)
    size = variant.size_bytes + (projector.size_bytes if projector else 0)
    beside: tuple[str, ...] = (str(projector.path),) if projector else ()
    if variant.format is not WeightFormat.GGUF:
        beside += _companions(description.files, variants)
    estimate = variant.memory.total_bytes if variant.memory else size + size // _OVERHEAD_SHARE + _OVERHEAD_BYTES
    return Plan(
        spec=replace(
            spec, variant=spec.variant or ("" if spec.file else variant.name), task=task, backend=found.backend
        ),
        name=description.name,
        commit=description.commit,
        variant=variant.name,
        format=_FORMATS[variant.format],
        wanted=(*weights, *beside),
        weights=weights,
        mmproj=str(projector.path) if projector else "",
        size_bytes=size,
        architecture=description.architecture,
        remote_code=description.remote_code,
        task=task,
        found=found,
        planned_bytes=estimate,
        registry_bypassed=description.registry_bypassed,
    )


def _companions(files: tuple[RepoFile, ...], variants: tuple[Variant, ...]) -> tuple[str, ...]:
    """Configuration, tokenizer and index files: whatever is no weights."""
    weights = {file.path for variant in variants for file in (*variant.files, *variant.projector_files)}
    return tuple(
        str(file.path)
        for file in files
        if file.path not in weights
        and not file.path.endswith(_OTHER_FRAMEWORKS)
        and not file.path.startswith("original/")
    )


def _choose_devices(plan: Plan, found: Found, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The devices asked for; or of those that the build can use as many of the emptiest as the model needs."""
    if plan.spec.devices:
        by_uuid = {device.uuid: device for device in devices}
        return tuple(_named(uuid, by_uuid) for uuid in plan.spec.devices)
    settings = plan.spec.settings
    kinds = found.kinds if settings.device is None else frozenset({settings.device})
    accelerators = [one for one in devices if one.usable and one.kind in kinds and one.kind is not DeviceKind.CPU]
    emptiest = sorted(accelerators, key=lambda device: -device.memory_free)
    if settings.tensor_parallel_size is not None:
        return tuple(emptiest[: settings.tensor_parallel_size])
    chosen: list[Device] = []
    for device in emptiest:
        chosen.append(device)
        if sum(one.memory_free for one in chosen) >= plan.planned_bytes:
            break
    return tuple(chosen)


def _named(uuid: str, known: Mapping[str, Device]) -> Device:
    if (device := known.get(uuid)) is None:
        raise Fault(Reason.DEVICE_NOT_FOUND, f"this host has no device {uuid}; it has {', '.join(known) or 'none'}")
    if not device.usable:
        raise Fault(Reason.DEVICE_NOT_FOUND, f"{uuid} cannot be used: {device.why_not}")
    return device


def _check_memory(plan: Plan, chosen: tuple[Device, ...], devices: tuple[Device, ...]) -> None:
    """The sum over the devices counts: backends spread layers over them."""
    where = chosen or tuple(device for device in devices if device.kind is DeviceKind.CPU)
    free = sum(device.memory_free for device in where)
    if not where or free >= plan.planned_bytes:
        return
    raise Fault(
        Reason.DEVICE_MEMORY_INSUFFICIENT,
        f"{plan.name} needs about {plan.planned_bytes:,} bytes, {free:,} are free; "
        "choose a smaller variant or unload another model",
        facts={"needed_bytes": str(plan.planned_bytes), "free_bytes": str(free)},
        preconditions=tuple(
            Precondition("DEVICE_MEMORY", device.uuid, f"{device.memory_free:,} bytes of {device.name} are free")
            for device in where
        ),
    )
