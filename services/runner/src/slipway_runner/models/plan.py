"""What will be run, and what that depends on. `choice` makes the one of the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from slipway_service.weights.memory import context_for, estimate
from slipway_service.weights.model_facts import ModelFacts
from slipway_service.weights.variant import WeightFormat

from slipway_runner.backends.base import Backend, Format, Found, LaunchPlan, ModelFiles, NotUsable, Task
from slipway_runner.devices.device import Device
from slipway_runner.models.spec import RepoSource, Spec

_FORMATS: Mapping[WeightFormat, Format] = {
    WeightFormat.GGUF: Format.GGUF,
    WeightFormat.SAFETENSORS: Format.SAFETENSORS,
    WeightFormat.PYTORCH: Format.PYTORCH,
    WeightFormat.ONNX: Format.ONNX,
}


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


class House(Protocol):
    """What the operator has decided for all models."""

    @property
    def operator_environment(self) -> Mapping[str, str]:
        """Variables that every backend gets."""

    @property
    def trust_remote_code(self) -> bool:
        """Whether code of repositories may run."""


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

    def memory(self, facts: ModelFacts, backend: Backend) -> int:
        """Bytes of memory that it is expected to take of that backend, where so much is known of it."""
        wanted = backend.context_tokens(self.spec.settings, self.spec.flags)
        tokens = context_for(wanted or 0, facts.context_length)
        return estimate(self.size_bytes, facts.cache, tokens).total_bytes

    def knowing(self, facts: ModelFacts, backend: Backend) -> "Plan":
        """The same, with what the files themselves say; what it needs is then spread over the same devices.

        Files that say nothing of the key-value cache leave what it needs as it was.
        """
        part = -(-self.memory(facts, backend) // max(1, len(self.needed)))
        return replace(
            self,
            architecture=facts.architecture or self.architecture,
            remote_code=facts.remote_code or self.remote_code,
            ranks=facts.pooling == "RANK" or self.ranks,
            needed=dict.fromkeys(self.needed, part) if facts.cache else self.needed,
        )

    def launch(
        self, root: Path, *, served_name: str, port: int, api_key: str, scratch: Path, house: House
    ) -> LaunchPlan:
        """What its backend makes a command line of, with the files below `root`; see `LaunchPlan`."""
        return LaunchPlan(
            found=self.found,
            files=self.files(root),
            task=self.task,
            served_name=served_name,
            port=port,
            api_key=api_key,
            scratch=scratch,
            settings=self.spec.settings,
            flags=self.spec.flags,
            environment=self.spec.environment,
            operator_environment=house.operator_environment,
            devices=self.devices,
            trust_remote_code=house.trust_remote_code,
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
