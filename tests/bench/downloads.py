"""How fast downloads are, beside other programs: ``python -m tests.bench downloads [--directory DIR] [--scale 0.1]``.

Every contender is a process of its own that fetches the same files from the same emulated Hub into the same file
system: one in memory, or with --directory a disk's. They take turns, so that a busy machine is busy for all of them,
and the median of each one's turns counts. Writes build/bench/downloads.md and .svg.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trustme

from tests.bench.contenders.downloaders import CONTENDERS, Contender, Job, environment_for, missing, present
from tests.bench.contenders.measured import FailedError, Figures, measure
from tests.bench.download_report import MIB, Case, write
from tests.bench.warm import read, warm_pages
from tests.hub.process import HubProcess

CHECKOUT = Path(__file__).resolve().parents[2]
IN_MEMORY = Path("/dev/shm")
# What lies there at once, and what a contender takes besides.
ROOM_BYTES = 4 << 30

CASES = (
    Case(name="1 x 2 GiB", files=1, size=2048 * MIB, rounds=5),
    Case(name="8 x 256 MiB", files=8, size=256 * MIB, rounds=5),
    Case(name="1 x 1 GiB over https", files=1, size=1024 * MIB, tls=True),
    Case(name="1 x 512 MiB, 25 MB/s a connection", files=1, size=512 * MIB, per_connection=25e6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A case with its Hub and repository ready."""

    case: Case
    contenders: Sequence[Contender]
    job: Job  # but for the directory
    authority: Path | None  # signed the Hub's certificate
    runs: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def turn(self, contender: Contender, root: Path, patience: float) -> None:
        """Let one contender fetch it once; it has `patience` seconds."""
        directory = Path(tempfile.mkdtemp(dir=root, prefix="slipway-bench-"))
        job = replace(self.job, directory=directory)
        try:
            os.sync()  # nobody pays for what was written before
            figures = measure(contender.command(job), environment_for(job, contender, self.authority), patience)
            self.runs.setdefault(contender.name, []).append(figures)
        except FailedError as error:
            self.failures[contender.name] = str(error)
        finally:
            shutil.rmtree(directory)


@contextmanager
def staged(cases: Sequence[Case], contenders: Sequence[Contender], blobs: Path) -> Iterator[Sequence[Stage]]:
    """Hubs with every case's repository; https is served under an authority made for this run."""
    with ExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority, certificate = keys / "ca.pem", keys / "server.pem"
        ca = trustme.CA()
        ca.cert_pem.write_to_path(authority)
        ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        stages = []
        for case in cases:
            options = ["--tls", str(certificate)] if case.tls else []
            trusted = authority if case.tls else None
            hub = stack.enter_context(HubProcess("--blob-directory", str(blobs), *options, ca=trusted))
            taking_part = [each for each in contenders if each.over_tls or not case.tls]
            stages.append(Stage(case=case, contenders=taking_part, job=published(hub, case), authority=trusted))
        yield stages


def published(hub: HubProcess, case: Case) -> Job:
    """Put the case's files on a Hub, and limit its links."""
    files = {f"{number}.safetensors": {"random": case.size, "seed": number} for number in range(case.files)}
    repo = f"bench/{case.files}x{case.size}"
    commit = hub.add_repo(repo, files, xet=True)
    for origin in ("cdn", "cas"):
        hub.throttle(origin, per_connection=case.per_connection)
    listing = [
        [entry["path"], entry["size"], entry["lfs"]["oid"], True, entry["xetHash"]]
        for entry in hub.get(f"/api/models/{repo}/tree/{commit}?recursive=true")
        if "lfs" in entry
    ]
    return Job(endpoint=hub.endpoint, repo=repo, commit=commit, listing=listing, directory=Path())


def compete(stages: Sequence[Stage], root: Path, blobs: Path, rounds: int, deadline: float) -> None:
    """Run rounds of turns, until the deadline (monotonic) at the latest: who is not compared has one turn."""
    took: dict[str, float] = {}
    for goal in (True, False):
        for stage in stages:
            begin = time.monotonic()
            play(stage, root, blobs, deadline, [each for each in stage.contenders if each.goal is goal])
            if goal:
                took[stage.case.name] = time.monotonic() - begin
    for number in range(1, rounds):
        for stage in stages:
            if number < stage.case.rounds and time.monotonic() + took[stage.case.name] < deadline:
                play(stage, root, blobs, deadline, [each for each in stage.contenders if each.goal])


def play(stage: Stage, root: Path, blobs: Path, deadline: float, contenders: Sequence[Contender]) -> None:
    """Give each of them a turn, as long as there is time."""
    for number in range(stage.case.files):
        read(blobs / f"random-{stage.case.size}-{number}")
    for contender in contenders:
        if (left := deadline - time.monotonic()) > 0:
            print(f"{stage.case.name}: {contender.name}", flush=True)
            stage.turn(contender, root, left)
        else:
            stage.failures.setdefault(contender.name, "there was no time left for it")


def default_directory() -> Path:
    """Memory where there is room, so that a disk's moods are not measured; else the checkout's disk."""
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM_BYTES
    return IN_MEMORY if roomy else CHECKOUT / "build" / "bench"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench downloads")
    parser.add_argument("--directory", type=Path, default=default_directory(), help="where to download to")
    parser.add_argument("--blobs", type=Path, default=CHECKOUT / "build" / "bench-blobs", help="keeps the content")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--rounds", type=int, default=5, help="at most, of those who are compared")
    parser.add_argument("--minutes", type=float, default=7.5, help="no turn begins later, nor lasts longer")
    parser.add_argument("--only", action="append", help="part of a contender's name; may be repeated")
    parser.add_argument("--case", type=int, action="append", help="number of a case, from 0; may be repeated")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    deadline = time.monotonic() + options.minutes * 60
    for directory in (options.directory, options.blobs):
        directory.mkdir(parents=True, exist_ok=True)
    chosen = [each for each in present(CONTENDERS) if any(part in each.name for part in options.only or [""])]
    scaled = "" if options.scale == 1 else f", sizes times {options.scale:g}"
    cases = [
        replace(case, size=int(case.size * options.scale), name=case.name + scaled)
        for number, case in enumerate(CASES)
        if options.case is None or number in options.case
    ]
    for line in missing():
        print(line, flush=True)
    with staged(cases, chosen, options.blobs) as stages, warm_pages(ROOM_BYTES):
        compete(stages, options.directory, options.blobs, options.rounds, deadline)
    write([(stage.case, stage.runs, stage.failures) for stage in stages], options.directory)


if __name__ == "__main__":
    main()
