"""One way to have a repository's weights."""

from dataclasses import dataclass
from enum import StrEnum

from slipway_service.weights.files import RepoFile
from slipway_service.weights.memory import Fit, MemoryEstimate


class WeightFormat(StrEnum):
    """The format of a set of weights; names as in `slipway.common.v1.WeightFormat`."""

    GGUF = "GGUF"
    SAFETENSORS = "SAFETENSORS"
    ONNX = "ONNX"
    PYTORCH = "PYTORCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A quantisation of a GGUF repository, or a set of files of one framework, as `slipway.common.v1.Variant` has it.

    Attributes:
        name: unique within the commit: `Q4_K_M`, `instruct/Q4_K_M`, `safetensors`, `onnx-q4` …
        format: the weights' format.
        quantization: quantisation or element type; empty when not known.
        bits_per_weight: on average; None when not known.
        files: the weight files; parts of a split and shards of an index in their order.
        projector_files: multimodal projectors that go with the weights; one of them is enough.
        missing: paths of parts that the names of the others speak of and that are not there (the first few of them).
            Such a variant cannot be loaded, and is never the default.
        model: what quantisations of one and the same model have in common (their base name); not shown to clients.
        memory: what serving it takes; None when nothing could be said.
        default: whether who chooses nothing gets this one; at most one variant of a commit.
        fits: one entry for each device that was asked about.
    """

    name: str
    format: WeightFormat
    quantization: str = ""
    bits_per_weight: float | None = None
    files: tuple[RepoFile, ...]
    projector_files: tuple[RepoFile, ...] = ()
    missing: tuple[str, ...] = ()
    model: str = ""
    memory: MemoryEstimate | None = None
    default: bool = False
    fits: tuple[Fit, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Sum of `files`."""
        return sum(file.size_bytes for file in self.files)
