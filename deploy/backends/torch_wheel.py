"""Which torch pip would install here, and what CUDA would come with it."""

import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.backends.steps import Steps

HEAD_TIMEOUT_S = 10.0
_CUDA_NAMES = re.compile(r"(nvidia|cuda)-|triton$")
_CUDA_LOCAL_VERSION = re.compile(r"\+cu\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One wheel that pip would fetch."""

    name: str
    version: str
    url: str


def downloads(report: dict[str, Any]) -> list[Download]:
    """Return what an installation report of pip (`--report`, version 1) lists."""
    return [
        Download(name=item["metadata"]["name"], version=item["metadata"]["version"], url=item["download_info"]["url"])
        for item in report["install"]
    ]


def cuda_among(wheels: list[Download]) -> list[Download]:
    """Return those that are there for CUDA: its libraries, its compiler, and the torch that is built for it.

    A torch with neither a +cu version nor such companions is a CPU build, as on macOS.
    """
    companions = [w for w in wheels if _CUDA_NAMES.match(w.name.lower().replace("_", "-"))]
    torch = [w for w in wheels if w.name == "torch" and (companions or _CUDA_LOCAL_VERSION.search(w.version))]
    return torch + companions


def cuda_sentence(wheels: list[Download], size_of: Callable[[str], int | None]) -> str:
    """Say what would come and how much it is to download, as far as the index tells."""
    sizes = [size_of(w.url) for w in wheels]
    known = sum(size for size in sizes if size)
    amount = f"{known / 1e9:.1f} GB" if known else "gigabytes"
    at_least = "at least " if known and None in sizes else ""
    return (
        f"pip finds no CPU build of torch for this Python, only one for CUDA: {len(wheels)} packages, "
        f"{at_least}{amount} to download and about twice that on disk."
    )


def content_length(url: str) -> int | None:
    """Return the size of a file in bytes as its server has it, or None."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HEAD_TIMEOUT_S) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, ValueError, TypeError):
        return None


def planned(python: Path, requirement: str, steps: Steps, *options: str) -> list[Download]:
    """Return what pip would fetch for `requirement`, without fetching it. Raises InstallError if it finds none."""
    report = python.parent.parent / "pip-report.json"
    # fast-deps reads a wheel's metadata with range requests where the index does not serve it by itself.
    plan = ("-m", "pip", "install", "--dry-run", "--use-feature=fast-deps", "--report", report)
    steps.run(python, *plan, *options, requirement)
    return downloads(json.loads(report.read_text()))
