"""Where installed backends live, and how one becomes visible.

    ROOT/llama-server           relative link to the build in force
    ROOT/.llama-server/lock     held (flock) by the one installer at work
    ROOT/.llama-server/log      output of the last build
    ROOT/.llama-server/a1b2c3   a build; trusted only when the link names it and its stamp is current

A build is made in a fresh directory, stamped last, and becomes visible by replacing the link in one step. A
virtual environment holds absolute paths, so builds are not moved: the link is what is renamed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

STAMP = "stamp.json"


class InstallError(Exception):
    """A backend cannot be had; the message says what is wrong and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a finished build says about itself; `digest` is that of the recipe and pins it was made from."""

    digest: str
    version: str
    seconds: float
    size_bytes: int


def default_root(environ: Mapping[str, str]) -> Path:
    """Return the directory of all backends; as the XDG specification has it, a relative cache home is ignored."""
    cache = Path(environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "slipway" / "backends"


def digest_of(files: Iterable[Path]) -> str:
    """Return one sha256 over the names and contents of `files`."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def size_of(directory: Path) -> int:
    """Return the bytes that the files below `directory` take on disk, links not followed."""
    return sum(
        entry.lstat().st_blocks * 512  # POSIX: st_blocks counts units of 512 bytes
        for folder, _, names in os.walk(directory)
        for entry in (Path(folder, name) for name in names)
    )


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one backend below the root."""

    root: Path
    name: str

    @property
    def home(self) -> Path:
        """The stable path of what is installed: a link to the build in force."""
        return self.root / self.name

    @property
    def log(self) -> Path:
        """The output of the last build."""
        return self._work / "log"

    @property
    def _work(self) -> Path:
        return self.root / f".{self.name}"

    def stamp(self) -> Stamp | None:
        """Return the stamp of what is installed, or None if there is nothing that was finished."""
        try:
            return Stamp(**json.loads((self.home / STAMP).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def usable(self, programs: Iterable[str]) -> bool:
        """Whether all `programs` (below home) are there and can be executed, the targets of links included."""
        return all(os.access(self.home / program, os.X_OK) for program in programs)

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the slot against other installers; calls `waiting` once if another one has it. The kernel frees it."""
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Give a fresh directory to build in, removed unless `publish` was called on it. Wants the lock held."""
        self._sweep()
        build = Path(tempfile.mkdtemp(dir=self._work, prefix=""))
        build.chmod(0o755)  # mkdtemp's 0700 would hide it from a service that runs as another user
        try:
            yield build
        finally:
            self._sweep()

    def publish(self, build: Path, stamp: Stamp) -> None:
        """Make `build` what the slot's home shows, in one step.

        Raises InstallError if something that is no link has taken the place.
        """
        (build / STAMP).write_text(json.dumps(asdict(stamp)) + "\n")
        link = build.with_suffix(".link")
        link.unlink(missing_ok=True)
        link.symlink_to(build.relative_to(self.root))
        if self.home.exists() and not self.home.is_symlink():
            raise InstallError(f"{self.home} was not made by this program: move it away and run this again")
        link.replace(self.home)

    def _sweep(self) -> None:
        """Remove every build but the one in force: older ones, and those whose installer was killed."""
        in_force = self.home.resolve()
        for entry in self._work.iterdir():
            if entry.is_symlink():
                entry.unlink()
            elif entry.is_dir() and entry != in_force and entry.resolve() != in_force:
                # What a killed installer started may still be writing here: the next sweep finishes then.
                shutil.rmtree(entry, ignore_errors=True)
