"""Where a model's files come from: the registry's cache, or a path of this host.

The fleet asks through `Snapshots`; that it is gRPC behind it is known elsewhere. A source is described first (which
commit, which files), so that the runner can choose what to run before a byte is fetched, and then fetched and held.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slipway_service.fault import Fault, FieldViolation, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

from slipway_runner.models.spec import PathSource, RepoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a source holds.

    Attributes:
        name: for people: the repository's id, or the path.
        commit: 40 hex digits; empty for a path.
        files: all of them, sorted by path.
        pipeline_tag: the Hub's word for its task (`text-generation`); empty when there is none.
        architecture: `LlamaForCausalLM` of config.json or `llama` of a GGUF header, where known before the fetch.
        remote_code: it needs Python code of its own.
        registry_bypassed: the registry is away, this is what the cache holds.
        folder: whether a repository or directory was asked for, and not one file.
        root: where files of a repository lie on this host, those that have been fetched; it may not exist.
    """

    name: str
    commit: str = ""
    files: tuple[RepoFile, ...]
    pipeline_tag: str = ""
    architecture: str = ""
    remote_code: bool = False
    registry_bypassed: bool = False
    folder: bool = True
    root: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """How far a fetch is.

    `paused`, by a caller or in a queue, suspends the stall timer; `detail` says what it waits for, in words.
    """

    done_bytes: int
    total_bytes: int
    paused: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Files that are complete on this host.

    Attributes:
        root: the directory they lie in, absolute.
        name: `snapshots/{id}` in the registry; empty for a path.
        registry_bypassed: taken from the cache because the registry is away.
    """

    root: Path
    name: str = ""
    registry_bypassed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Files of a source at a commit, those of a variant, and who wants them: `holder` is the model's uid."""

    source: RepoSource
    commit: str
    variant: str
    files: tuple[str, ...]
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A pin of this runner's: for which model (`holder`, its uid), and whether somebody waits for its files to delete
    them, and has not been told no.
    """

    holder: str
    wanted_back: bool = False


class Snapshots(Protocol):
    """The registry, as the fleet needs it."""

    async def describe(self, source: RepoSource) -> Description:
        """Resolve the revision and list the files.

        When the registry is away it answers from the cache, if the revision is known there.

        Raises:
            Fault: REPO_NOT_FOUND, REVISION_NOT_FOUND, REPO_GATED, REGISTRY_UNAVAILABLE …
        """

    async def fetch(self, want: Want, report: Callable[[Fetching], None]) -> Snapshot:
        """Have the files downloaded if they are not there, and pin them for `want.holder`.

        To cancel it is to stop waiting: the download goes on. Repeating it is harmless.

        Raises:
            Fault: DOWNLOAD_FAILED, DOWNLOAD_CANCELLED, REGISTRY_UNAVAILABLE, CACHE_NOT_SHARED …
        """

    async def renew(self, want: Want) -> None:
        """Renew the pin. Raises Fault: REGISTRY_UNAVAILABLE; the pin then lasts until its time is over."""

    async def refuse(self, want: Want, why: str) -> None:
        """Say that the pin, which is asked for, is not given back, and why. Raises Fault: REGISTRY_UNAVAILABLE."""

    async def release(self, holder: str) -> None:
        """Give the holder's pins back; harmless when there are none. Does not raise when the registry is away."""

    def held(self) -> AsyncIterator[tuple[Held, ...]]:
        """All pins of this runner, now and after every change, for ever; nothing while the registry is away.

        Ends at once where there is no registry.

        Raises:
            Fault: the registry refuses to tell; asking again at once does not help.
        """


# A pin lasts 24 h; three missed renewals are survived.
PIN_RENEWAL_SECONDS = 6 * 3600.0

# After one that was missed; a restart of the registry takes seconds, and this costs it nothing.
PIN_RETRY_SECONDS = 60.0


class NoRegistry:
    """Stands in for the registry on a runner that has none: only paths can be loaded."""

    async def describe(self, source: RepoSource) -> Description:
        """Refuse."""
        raise Fault(
            Reason.REGISTRY_UNAVAILABLE,
            f"this runner has no registry to get {source} from; start it with --registry HOST:PORT or load a path",
        )

    async def fetch(self, want: Want, report: Callable[[Fetching], None]) -> Snapshot:  # noqa: ARG002
        """Refuse."""
        raise Fault(Reason.REGISTRY_UNAVAILABLE, f"this runner has no registry to get {want.source} from")

    async def renew(self, want: Want) -> None:
        """Nothing is held."""

    async def refuse(self, want: Want, why: str) -> None:
        """Nothing is held."""

    async def release(self, holder: str) -> None:
        """Nothing is held."""

    async def held(self) -> AsyncIterator[tuple[Held, ...]]:
        """Nothing is held, ever."""
        return
        yield ()


@dataclass(frozen=True, slots=True)
class LocalPaths:
    """Files and directories below the roots that the operator allows; links are followed before that is checked."""

    roots: tuple[Path, ...] = ()

    def describe(self, source: PathSource) -> tuple[Description, Path]:
        """What is at the path, and the directory that the files' names are relative to.

        For a file that is its directory, with the files beside it: the parts of a split GGUF lie there.

        Raises:
            Fault: PATH_NOT_ALLOWED, MODEL_FILE_MISSING.
        """
        path = self._allowed(source.path)
        folder = path.is_dir()
        root = path if folder else path.parent
        files = tuple(sorted(self._files(root, deep=folder), key=_path))
        return Description(name=str(source.path), files=files, folder=folder), root

    def _allowed(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not path.is_absolute() or not any(real.is_relative_to(os.path.realpath(root)) for root in self.roots):
            allowed = ", ".join(map(str, self.roots)) or "none is configured"
            raise _wrong(Reason.PATH_NOT_ALLOWED, f"{path} lies outside the roots for models ({allowed})")
        if not real.exists():
            raise _wrong(Reason.MODEL_FILE_MISSING, f"there is no {path}", resource=str(path))
        return real

    def _files(self, root: Path, *, deep: bool) -> Iterable[RepoFile]:
        for folder, below, names in os.walk(root):
            if not deep:
                below.clear()
            for name in names:
                file = Path(folder, name)
                with suppress(ValueError):  # a name that no repository could have is no model's file
                    if file.is_file() and self._inside(file):
                        path = FilePath.parse(file.relative_to(root).as_posix())
                        yield RepoFile(path=path, size_bytes=file.stat().st_size)

    def _inside(self, file: Path) -> bool:
        if not file.is_symlink():
            return True
        real = Path(os.path.realpath(file))
        return any(real.is_relative_to(os.path.realpath(root)) for root in self.roots)


def _wrong(reason: Reason, text: str, *, resource: str = "") -> Fault:
    return Fault(reason, text, fields=(FieldViolation("spec.path", text),), resource=resource)


def _path(file: RepoFile) -> str:
    return file.path
