"""A registry with one repository, as the fleet sees it."""

import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from slipway_runner.models.snapshots import Description, Fetching, Held, Snapshot, Want
from slipway_runner.models.spec import RepoSource, Spec
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

COMMIT = "c" * 40
SPEC = Spec(source=RepoSource(repo_id="owner/model"))
FILE = "m-Q4_K_M.gguf"

# Of a context: 32 layers of 32 heads of 128, keys and values, two bytes each.
BYTES_PER_TOKEN = 32 * 32 * 128 * 2 * 2


def gguf_with_a_context() -> bytes:
    """A header that tells what each token of context takes: `BYTES_PER_TOKEN`."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32, "context_length": 4096}
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(f"llama.{key}") + struct.pack("<II", 4, number) for key, number in numbers.items()]
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


@dataclass
class FakeSnapshots:
    """Its download is moved on by a test, and so are the pins: `want_back`, `tell`; `heard` is what of them a follower
    has taken in.
    """

    root: Path
    commit: str = COMMIT
    content: bytes = b"GGUF" + bytes(996)
    pins: dict[str, Held] = field(default_factory=dict)
    wants: list[Want] = field(default_factory=list)
    report: Callable[[Fetching], None] | None = None
    away: bool = False
    bypassed: bool = False
    away_for_pins: int = 0
    asked: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)
    fault: Fault | None = None
    refused: list[tuple[str, str]] = field(default_factory=list)
    heard: tuple[Held, ...] = ()
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def describe(self, source: RepoSource) -> Description:
        if self.away:
            raise Fault(Reason.REGISTRY_UNAVAILABLE, "the registry is away")
        files = (RepoFile(path=FilePath(FILE), size_bytes=1000),)
        return Description(
            name=source.repo_id, commit=self.commit, files=files, pipeline_tag="text-generation", root=self.root
        )

    async def fetch(self, want: Want, report: Callable[[Fetching], None]) -> Snapshot:
        self.wants.append(want)
        self.report = report
        self.asked.set()
        await self.done.wait()
        if self.fault is not None:
            raise self.fault
        if not self.bypassed:
            await self.renew(want)
        (self.root / FILE).write_bytes(self.content)
        return Snapshot(root=self.root, name="snapshots/s1", registry_bypassed=self.bypassed)

    async def renew(self, want: Want) -> None:
        if self.away or self.away_for_pins:
            self.away_for_pins = max(0, self.away_for_pins - 1)
            raise Fault(Reason.REGISTRY_UNAVAILABLE, "the registry is away")
        self.pins[want.holder] = Held(holder=want.holder)
        self.tell()

    async def refuse(self, want: Want, why: str) -> None:
        self.refused.append((want.holder, why))
        self.pins[want.holder] = Held(holder=want.holder)
        self.tell()

    async def release(self, holder: str) -> None:
        if not self.away and holder in self.pins:
            del self.pins[holder]
            self.tell()

    async def held(self) -> AsyncIterator[tuple[Held, ...]]:
        while True:
            news = self._news
            if not self.away:
                told = tuple(self.pins.values())
                yield told
                self.heard = told
            await news.wait()

    @property
    def held_for(self) -> set[str]:
        """The uids of the models that hold something."""
        return set(self.pins)

    def want_back(self, holder: str, *, wanted: bool = True) -> None:
        """Ask a model to let go, or no longer."""
        self.pins[holder] = Held(holder=holder, wanted_back=wanted)
        self.tell()

    def tell(self) -> None:
        """Let those who follow the pins know them."""
        self._news.set()
        self._news = anyio.Event()
