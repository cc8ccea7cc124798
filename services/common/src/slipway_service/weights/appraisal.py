"""What can be said of a commit once headers and configuration have been read: sizes in bits, memory, fit, purpose."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from slipway_service.weights.files import RepoFile
from slipway_service.weights.memory import DeviceMemory, context_for, estimate, fits
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.quantization import preference
from slipway_service.weights.task import Task, detect_task
from slipway_service.weights.variant import Variant, WeightFormat
from slipway_service.weights.variants import preferred_projector

MAX_HEADERS = 4
"""So many models of one repository have a header read; each takes a few requests of the Hub."""

_WHOLE_TYPES = frozenset({"", "F32", "F16", "BF16", "FP8"})
"""Element types whose files hold one element for each parameter; packed ones hold several in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSummary:
    """As `slipway.registry.v1.ConfigSummary`; None, or an empty text, is what is not known."""

    architecture: str = ""
    model_type: str = ""
    context_length: int | None = None
    parameters: int | None = None
    task: Task | None = None
    chat_template: bool | None = None
    remote_code: bool = False


def header_sources(variants: Iterable[Variant]) -> dict[str, RepoFile]:
    """For each model that GGUF variants quantise, the file whose header speaks for all of them; at most four.

    A whole file rather than a part, which does not have all tensors; then the one most likely wanted.
    """
    best: dict[str, Variant] = {}
    for variant in variants:
        if variant.format is WeightFormat.GGUF and not variant.missing:
            other = best.get(variant.model)
            best[variant.model] = variant if other is None else min(other, variant, key=_as_source)
    models = sorted(best, key=lambda model: (not best[model].default, _as_source(best[model])))
    return {model: best[model].files[0] for model in models[:MAX_HEADERS]}


def _as_source(variant: Variant) -> tuple[bool, float, str]:
    return len(variant.files) > 1, preference(variant.quantization), variant.name


def appraise(
    variants: Sequence[Variant],
    *,
    ggufs: Mapping[str, ModelFacts],
    config: ModelFacts,
    trained_context: int | None = None,
    context_tokens: int = 0,
    devices: Sequence[DeviceMemory] = (),
) -> tuple[Variant, ...]:
    """The variants with bits, memory estimate and fit.

    Args:
        variants: those of `find_variants`.
        ggufs: facts from GGUF headers, by `Variant.model`.
        config: facts from config.json, with the parameters that the Hub counted; for all other formats.
        trained_context: tokens that the model was trained for, where none of these facts tells.
        context_tokens: context to estimate for; 0 for the smaller of 8,192 and what the model was trained for.
        devices: those to say for whether each variant fits.
    """
    nothing = ModelFacts(context_length=trained_context)
    config = replace(config, context_length=config.context_length or trained_context)
    return tuple(
        _appraised(
            variant,
            ggufs.get(variant.model, nothing) if variant.format is WeightFormat.GGUF else config,
            context_tokens,
            devices,
        )
        for variant in variants
    )


def _appraised(variant: Variant, facts: ModelFacts, context_tokens: int, devices: Sequence[DeviceMemory]) -> Variant:
    quantization = variant.quantization or facts.quantization
    known = replace(variant, quantization=quantization, bits_per_weight=_bits(variant, quantization, facts))
    if variant.missing:
        return known
    projector = preferred_projector(variant)
    weights = variant.size_bytes + (projector.size_bytes if projector else 0)
    memory = estimate(weights, facts.cache, context_for(context_tokens, facts.context_length))
    return replace(known, memory=memory, fits=fits(memory, devices))


def _bits(variant: Variant, quantization: str, facts: ModelFacts) -> float | None:
    counted = variant.format is WeightFormat.GGUF or quantization in _WHOLE_TYPES
    if facts.parameters and counted and not variant.missing:
        return round(variant.size_bytes * 8 / facts.parameters, 2)
    return variant.bits_per_weight or facts.bits_per_weight


def summarise(
    facts: Sequence[ModelFacts],
    *,
    name: str = "",
    pipeline_tag: str = "",
    paths: Collection[str] = (),
    parameters: int | None = None,
) -> ConfigSummary:
    """What the model is, from the facts there are: what an earlier one does not tell, a later one may.

    Args:
        facts: config.json's before those of a GGUF header.
        name: the repository's.
        pipeline_tag: the Hub's.
        paths: of all files.
        parameters: as the Hub counted them; taken before a header's, which may count one part.
    """
    first = _Merged(facts)
    architecture = first.text("architecture")
    template = first.of("chat_template")
    if "chat_template.jinja" in paths or "chat_template.json" in paths:
        template = True
    return ConfigSummary(
        architecture=architecture,
        model_type=first.text("model_type"),
        context_length=first.number("context_length"),
        parameters=parameters or first.number("parameters"),
        task=detect_task(
            name=name,
            pipeline_tag=pipeline_tag,
            architecture=architecture,
            pooling=first.text("pooling"),
            labels=first.number("labels"),
            paths=paths,
        ),
        chat_template=template if isinstance(template, bool) else None,
        remote_code=any(fact.remote_code for fact in facts),
    )


class _Merged:
    """The first thing that any of several facts tells."""

    def __init__(self, facts: Sequence[ModelFacts]) -> None:
        self._facts = facts

    def of(self, name: str) -> object:
        return next((value for fact in self._facts if (value := getattr(fact, name)) not in (None, "")), None)

    def text(self, name: str) -> str:
        value = self.of(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int | None:
        value = self.of(name)
        return value if isinstance(value, int) else None
