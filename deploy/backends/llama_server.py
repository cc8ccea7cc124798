"""llama-server: the one on PATH if it works, else built from the source in llama-cpp-python's sdist."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.backends.recipe import Built
from deploy.backends.steps import PINS, Steps
from deploy.backends.store import InstallError, digest_of

_TOOLS = PINS / "llama-server-tools.txt"
_SOURCE = PINS / "llama-cpp-python.txt"
_UNITY = Path(__file__).with_name("llama_server.cmake")

LINKED = "linked"  # the digest of an installation that is a link to the llama-server on PATH
PROBE_TIMEOUT_S = 20.0  # a CUDA build loads its libraries first, which takes seconds from a cold disk
COMPILER_BYTES = 3 << 29  # g++ peaks at 1.0 GiB on the largest unity file; half as much again for the rest of the host
UPSTREAM_COMMIT = "0c1e57098"  # of the llama.cpp in this sdist, which carries no .git to ask

# -O1, unity, and no repacked kernels: 2 minutes on 2 cores, where a plain release build takes 6. The server is for
# tests and demonstrations of small models. The interface would be fetched from the network, OpenMP and OpenSSL would
# be libraries the host may lack.
_OPTIONS = (
    "CMAKE_BUILD_TYPE=Release", "CMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG", "CMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    "CMAKE_UNITY_BUILD=ON", "CMAKE_UNITY_BUILD_BATCH_SIZE=12", f"CMAKE_PROJECT_INCLUDE={_UNITY}",
    "BUILD_SHARED_LIBS=OFF", "GGML_NATIVE=OFF", "GGML_OPENMP=OFF", "GGML_LLAMAFILE=OFF", "GGML_CPU_REPACK=OFF",
    "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_ALL_WARNINGS=OFF",
    "LLAMA_BUILD_NUMBER=1", f"LLAMA_BUILD_COMMIT={UPSTREAM_COMMIT}",
)  # fmt: skip

NO_COMPILER = (
    "llama-server has to be compiled, and there is no C++ compiler.\n"
    "On Debian or Ubuntu: sudo apt-get install g++      on Fedora: sudo dnf install gcc-c++\n"
    "on macOS: xcode-select --install      or put a llama-server on PATH."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServer:
    """llama.cpp's server; `compile_it` says no to one on `search_path`, and what is below `ours` never counts."""

    search_path: str
    ours: Path
    compile_it: bool = False
    name: str = "llama-server"
    programs: tuple[str, ...] = ("bin/llama-server",)

    @property
    def accepted(self) -> frozenset[str]:
        """A build from these pins and, unless one must be compiled, a link whose target is still there."""
        return frozenset({self._digest} if self.compile_it else {self._digest, LINKED})

    @property
    def _digest(self) -> str:
        return digest_of((Path(__file__), _UNITY, _TOOLS, _SOURCE))

    def build(self, into: Path, steps: Steps) -> Built:
        """Link or compile. The compiler and its tools leave nothing behind but the server."""
        digest = self._digest
        server = into / self.programs[0]
        server.parent.mkdir()
        if not self.compile_it and (version := _link(server, on_path(self.search_path, self.ours))):
            steps.note(f"found on PATH: {server.readlink()}")
            return Built(version=version, digest=LINKED)
        _compile(server, into / "scratch", steps)
        version = version_of(server)
        if version is None:
            raise InstallError(f"the llama-server just built does not run; the build's output: {steps.log}")
        return Built(version=version, digest=digest)


def on_path(search_path: str, ours: Path) -> Iterator[Path]:
    """Give every executable llama-server on `search_path` that is not one of `ours`, in order."""
    for folder in search_path.split(os.pathsep):
        candidate = Path(folder, "llama-server")
        if folder and os.access(candidate, os.X_OK) and not candidate.resolve().is_relative_to(ours.resolve()):
            yield candidate.absolute()


def version_of(server: Path) -> str | None:
    """Return what `--version` prints after `version:` (stderr in upstream's builds), or None if it does not run."""
    try:
        done = subprocess.run(
            (server, "--version"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=PROBE_TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    said = re.search(r"version:\s*(.+)", done.stdout.decode(errors="replace"))
    return said[1].strip() if said else "unknown"


def _link(server: Path, candidates: Iterable[Path]) -> str | None:
    for candidate in candidates:
        server.symlink_to(candidate)
        # Asked through the link: a wrapper that looks for its neighbours beside itself would not find them.
        if version := version_of(server):
            return version
        server.unlink()
    return None


def _compile(server: Path, scratch: Path, steps: Steps) -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        raise InstallError(NO_COMPILER)
    steps.note("cmake and ninja, for this build only")
    python = steps.venv(scratch / "tools")
    steps.pip_install(python, _TOOLS)
    steps.note("source: the sdist of llama-cpp-python, 77 MB")
    steps.run(
        *(python, "-m", "pip", "download", "--require-hashes", "--no-deps", "--no-build-isolation"),
        *("--no-binary", "llama-cpp-python", "-r", _SOURCE, "-d", scratch),
    )
    (sdist,) = scratch.glob("llama_cpp_python-*.tar.gz")
    steps.run("tar", "-xzf", sdist, "-C", scratch)
    source, build = scratch / sdist.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp", scratch / "build"
    cmake, ninja = python.with_name("cmake"), python.with_name("ninja")
    parallel = jobs(_cores(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    steps.note(f"compiling, {parallel} files at a time: about 2 minutes with 2 cores")
    steps.run(
        *(cmake, "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *(f"-D{option}" for option in _OPTIONS),
    )
    steps.run(ninja, "-C", build, "-j", str(parallel), "llama-server")
    shutil.copy2(build / "bin" / "llama-server", server)
    shutil.rmtree(scratch)


def jobs(cores: int, memory_bytes: int) -> int:
    """Return how many files to compile at a time."""
    return max(1, min(cores, memory_bytes // COMPILER_BYTES))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS; fewer than cpu_count in a container or under taskset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
