"""How fast downloads are, beside other programs: ``python -m tests.bench.downloads [--directory DIR] [--scale 0.1]``.

Every contender is a process of its own that fetches the same files from the same emulated Hub into the same file
system. Of the others the whole process is measured: wall time, CPU seconds (user and system), peak memory; of ours,
which is a service, one download in it, and its memory over that of the idle process. Ours hashes and syncs; of the
others only the one called so does.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.plot import bars
from tests.hub.process import HubProcess

MIB = 1 << 20
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files to fetch, and the link they come over (bytes a second for each connection; None: as fast as it goes)."""

    name: str
    files: int
    size: int
    per_connection: float | None = None


CASES = (
    Case(name="1 x 2 GiB", files=1, size=2048 * MIB),
    Case(name="8 x 256 MiB", files=8, size=256 * MIB),
    Case(name="1 x 512 MiB, 25 MB/s a connection", files=1, size=512 * MIB, per_connection=25e6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One contender's work: where the Hub is, what to fetch, and an empty directory to fetch it to."""

    endpoint: str
    repo: str
    commit: str
    listing: Sequence[Sequence[Any]]
    directory: Path

    @property
    def urls(self) -> list[str]:
        return [f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{file[0]}" for file in self.listing]


def ours(job: Job, transport: str) -> list[str]:
    creation = json.dumps({"repo": job.repo, "commit": job.commit, "files": job.listing})
    return [
        sys.executable,
        "-m",
        "tests.bench.contenders.registry",
        str(job.directory),
        job.endpoint,
        transport,
        creation,
    ]


def hf(job: Job) -> list[str]:
    return [str(Path(sys.executable).with_name("hf")), "download", job.repo, "--revision", job.commit]


def curl(job: Job) -> list[str]:
    outputs = [part for number, url in enumerate(job.urls) for part in ("-o", str(job.directory / f"{number}"), url)]
    return ["curl", "-sSfL", "--parallel", *outputs]


def curl_hashed_and_synced(job: Job) -> list[str]:
    quoted = " ".join(f"'{part}'" for part in curl(job))
    return ["bash", "-ec", f"{quoted} && sha256sum {job.directory}/[0-9]* > /dev/null && sync -f {job.directory}"]


def aria2c(job: Job) -> list[str]:
    targets = "\n".join(f"{url}\n  out={number}" for number, url in enumerate(job.urls))
    (job.directory / "urls").write_text(targets)
    options = ["-q", "-x8", "-s8", "-j8", "--min-split-size=4M", "--file-allocation=falloc"]
    return ["aria2c", *options, "-d", str(job.directory), "-i", str(job.directory / "urls")]


CONTENDERS: Mapping[str, tuple[Callable[[Job], list[str]], Mapping[str, str]]] = {
    "slipway, http": (lambda job: ours(job, "HTTP"), {}),
    "slipway, xet": (lambda job: ours(job, "XET"), {}),
    "hf download, http": (hf, {"HF_HUB_DISABLE_XET": "1"}),
    "hf download, xet": (hf, {}),
    "curl": (curl, {}),
    "curl && sha256sum && sync": (curl_hashed_and_synced, {}),
    "aria2c": (aria2c, {}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run cost: seconds, CPU seconds, bytes of memory at the peak."""

    wall: float
    cpu: float
    memory: int


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Figures:
    """Run a program to its end.

    Raises:
        RuntimeError: it failed.
    """
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=dict(environment), stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begin
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {said.read()[-2000:]!r}")
        said.seek(0)
        lines = said.read().splitlines()
    if lines and lines[-1].startswith(b'{"wall"'):
        return Figures(**json.loads(lines[-1]))
    return Figures(wall=wall, cpu=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss * 1024)


def environment_for(directory: Path, endpoint: str, extra: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(directory), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return inherited | own | {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1"} | dict(extra)


def run_case(case: Case, hub: HubProcess, root: Path, only: Sequence[str], rounds: int) -> dict[str, list[Figures]]:
    files = {f"{number}.safetensors": {"random": case.size, "seed": number} for number in range(case.files)}
    repo = f"bench/{case.files}x{case.size}"
    commit = hub.add_repo(repo, files, xet=True)
    listing = listing_of(hub, repo, commit)
    hub.throttle("cdn", per_connection=case.per_connection)
    hub.throttle("cas", per_connection=case.per_connection)
    found: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for name, (command, extra) in CONTENDERS.items():
            if not any(part in name for part in only) or (name == "aria2c" and not shutil.which("aria2c")):
                continue
            directory = Path(tempfile.mkdtemp(dir=root, prefix="bench-"))
            job = Job(endpoint=hub.endpoint, repo=repo, commit=commit, listing=listing, directory=directory)
            try:
                os.sync()  # nobody pays for what was written before
                figures = measure(command(job), environment_for(directory, hub.endpoint, extra))
            finally:
                shutil.rmtree(directory)
            found.setdefault(name, []).append(figures)
    return found


def listing_of(hub: HubProcess, repo: str, commit: str) -> list[list[Any]]:
    """The files as the driver takes them, read from the Hub's API."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{hub.endpoint}/api/models/{repo}/tree/{commit}?recursive=true") as answer:
        entries = json.load(answer)
    return [
        [entry["path"], entry["size"], entry["lfs"]["oid"], True, entry.get("xetHash") or ""]
        for entry in entries
        if entry["type"] == "file" and "lfs" in entry
    ]


def median(runs: Sequence[Figures]) -> Figures:
    return Figures(
        wall=statistics.median(run.wall for run in runs),
        cpu=statistics.median(run.cpu for run in runs),
        memory=int(statistics.median(run.memory for run in runs)),
    )


def table(case: Case, found: Mapping[str, Figures]) -> str:
    total = case.files * case.size
    rows = [
        f"| {name} | {run.wall:.2f} | {total / run.wall / 1e6:.0f} | {run.cpu:.2f} | {run.memory / MIB:.0f} |"
        for name, run in found.items()
    ]
    head = [f"### {case.name}", "", "| | wall s | MB/s | CPU s | peak MiB |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--directory", type=Path, default=CHECKOUT / "build", help="where to download to")
    parser.add_argument("--blobs", type=Path, default=CHECKOUT / "build" / "bench-blobs", help="keeps the content")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--only", action="append", help="part of a contender's name; may be repeated")
    parser.add_argument("--case", type=int, action="append", help="number of a case, from 0; may be repeated")
    options = parser.parse_args()
    for directory in (options.directory, options.blobs):
        directory.mkdir(parents=True, exist_ok=True)
    report: list[str] = []
    walls: dict[str, dict[str, float]] = {}
    with HubProcess("--blob-directory", str(options.blobs)) as hub:
        for number, case in enumerate(CASES):
            if options.case and number not in options.case:
                continue
            scaled = Case(
                name=case.name,
                files=case.files,
                size=int(case.size * options.scale),
                per_connection=case.per_connection,
            )
            runs = run_case(scaled, hub, options.directory, options.only or [""], options.rounds)
            found = {name: median(figures) for name, figures in runs.items()}
            report.append(table(scaled, found))
            walls[case.name] = {name: figures.wall for name, figures in found.items()}
            print(report[-1], flush=True)
    (CHECKOUT / "build" / "downloads.md").write_text("\n".join(report))
    (CHECKOUT / "build" / "downloads.svg").write_text(bars(walls))


if __name__ == "__main__":
    main()
