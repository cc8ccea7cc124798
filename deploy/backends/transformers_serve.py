"""`transformers serve` with a torch for the CPU, in a virtual environment of its own."""

from dataclasses import dataclass
from pathlib import Path

from deploy.backends.recipe import Built
from deploy.backends.steps import PINS, Steps
from deploy.backends.store import InstallError, digest_of
from deploy.backends.torch_wheel import content_length, cuda_among, cuda_sentence, planned

VERSION = "5.23.0"
TORCH = "2.13.0"
_CPU, _ANY = PINS / "transformers-cpu.txt", PINS / "transformers-any.txt"

WAYS_OUT = (
    "To do without: run this with python3.11 on Linux x86_64, with PyTorch's index of CPU wheels in "
    "PIP_EXTRA_INDEX_URL (pytorch.org, Get Started, names it)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersServe:
    """transformers' own server, the reference for models that are safetensors files."""

    name: str = "transformers"
    programs: tuple[str, ...] = ("bin/transformers", "bin/python")

    @property
    def accepted(self) -> frozenset[str]:
        """A build from these pins."""
        return frozenset({digest_of((Path(__file__), _CPU, _ANY))})

    def build(self, into: Path, steps: Steps) -> Built:
        """Install the CPU build of torch if pip finds one, else whatever torch there is, after asking about CUDA."""
        (digest,) = self.accepted
        python = steps.venv(into)
        pins, torch = choose(python, steps)
        steps.note(f"transformers {VERSION} with {torch}: about a minute, 1.2 GB on disk without CUDA")
        steps.pip_install(python, pins)
        steps.run(python.with_name("transformers"), "serve", "--help")
        return Built(version=f"{VERSION}, {torch}", digest=digest)


def choose(python: Path, steps: Steps) -> tuple[Path, str]:
    """Return the pins to install and the name of their torch, after asking if that is one with CUDA.

    Raises InstallError if the answer is no or there is no torch at all.
    """
    try:
        planned(python, f"torch=={TORCH}+cpu", steps, "--no-deps")
    except InstallError:
        steps.note(f"no torch {TORCH}+cpu for this Python: looking at what torch {TORCH} would bring")
    else:
        return _CPU, f"torch {TORCH}+cpu"
    if cuda := cuda_among(planned(python, f"torch=={TORCH}", steps)):
        steps.confirm(f"{cuda_sentence(cuda, content_length)}\n{WAYS_OUT}")
    return _ANY, f"torch {TORCH}"
