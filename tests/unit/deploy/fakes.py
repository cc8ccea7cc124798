"""Stand-ins for what an install meets: a backend's recipe, programs on PATH, a person who is never to be asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.backends.recipe import Built
from deploy.backends.steps import Steps

REPOSITORY = Path(__file__).parents[3]
WORKING = '#!/bin/sh\n[ "$1" = --version ] && echo "version: 7 (abc)" >&2\n'
"""A llama-server as far as an installer looks."""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def never(question: str) -> None:
    raise AssertionError(f"asked: {question}")


@dataclass
class FakeRecipe:
    """A recipe that writes one program, calls `during` in the middle of it, and counts its builds."""

    digest: str = "d"
    during: Callable[[Path, Steps], None] = lambda into, steps: None
    name: str = "fake"
    programs: tuple[str, ...] = ("bin/fake",)
    builds: list[Path] = field(default_factory=list)

    @property
    def accepted(self) -> frozenset[str]:
        return frozenset({self.digest})

    def build(self, into: Path, steps: Steps) -> Built:
        digest = self.digest
        self.builds.append(into)
        script(into / "bin/fake", "#!/bin/sh\n")
        self.during(into, steps)
        return Built(version="1.0", digest=digest)
