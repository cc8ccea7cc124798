"""The tables, goals and bars of the download benchmark."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders.downloaders import CURL, HF_HTTP, OURS_HTTP, OURS_XET
from tests.bench.contenders.measured import Figures
from tests.bench.plot import bars
from tests.bench.report import BUILD, Report

MIB = 1 << 20

NOTE = """\
CPU is user and system time of all processes of a contender; the Hub's and the kernel's own threads' are not in it.
`slipway` rows are one download in a registry that runs, from its creation to its end, and its memory is that beyond the
idle process; all other rows, `slipway-registry preload` among them, are whole programs with their start. Ours are
hashed, synced and published; of the others only the one called so is hashed and synced. They are medians of turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files to fetch, and the link they come over (bytes a second for each connection; None: as fast as it goes)."""

    name: str
    files: int
    size: int
    per_connection: float | None = None
    tls: bool = False
    rounds: int = 1  # of those who are compared

    @property
    def total(self) -> int:
        """Bytes."""
        return self.files * self.size


@dataclass(frozen=True, slots=True)
class Goal:
    """Something to reach: `value` is to be at most `most`, or at least `least`."""

    text: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        return self.value >= self.least if self.least is not None else self.most is None or self.value <= self.most

    @property
    def wanted(self) -> str:
        return f"≥ {self.least:g}{self.unit}" if self.least is not None else f"≤ {self.most:g}{self.unit}"


Results = Sequence[tuple[Case, Mapping[str, Sequence[Figures]], Mapping[str, str]]]


def write(results: Results, directory: Path) -> None:
    """Print the tables; write them and the bars to build/bench/."""
    walls: dict[str, Mapping[str, float]] = {}
    cores: dict[str, Mapping[str, float]] = {}
    with Report("downloads") as report:
        report.say(f"On {os.cpu_count()} cores, to {file_system(directory)}.")
        report.say()
        report.say(NOTE)
        for case, runs, failures in results:
            found = {name: Figures.median(figures) for name, figures in runs.items()}
            _tell(report, case, found, failures, {name: len(figures) for name, figures in runs.items()})
            walls[f"{case.name}: seconds"] = {name: figures.wall for name, figures in found.items()}
            cores[f"{case.name}: CPU seconds"] = {name: figures.cpu for name, figures in found.items()}
    merged = {title: values for pair in zip(walls.items(), cores.items(), strict=True) for title, values in pair}
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "downloads.svg").write_text(bars(merged))


def file_system(directory: Path) -> str:
    """The type of file system that a directory is on (proc(5), mounts)."""
    best = ("/", "an unknown file system")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if directory.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def goals(case: Case, found: Mapping[str, Figures]) -> Iterator[Goal]:
    """What is to be reached in a case, as far as those it is measured by took part."""
    ours, hf, curl, xet = (found.get(name) for name in (OURS_HTTP, HF_HTTP, CURL, OURS_XET))
    if ours and hf:
        least = 6.0 if case.per_connection else 2.0
        yield Goal(f"as fast as `{HF_HTTP}`", hf.wall / ours.wall, " x", least=least)
    if ours and curl and not case.per_connection:
        yield Goal("as fast as `curl`, which does not hash", curl.wall / ours.wall, " x", least=1.0)
    if ours and hf:
        yield Goal(f"the CPU time of `{HF_HTTP}`", ours.cpu / hf.cpu, " x", most=0.6)
    if ours:
        yield Goal("memory over http", ours.memory / MIB, " MiB", most=100)
    if xet:
        yield Goal("memory over Xet", xet.memory / MIB, " MiB", most=512)


def _tell(
    report: Report, case: Case, found: Mapping[str, Figures], failures: Mapping[str, str], turns: Mapping[str, int]
) -> None:
    report.say()
    report.say(f"### {case.name}")
    report.say()
    report.head("", "turns", "wall s", "MB/s", "CPU s", "CPU s/GB", "peak MiB")
    for name, run in found.items():
        figures = (run.wall, case.total / run.wall / 1e6, run.cpu, run.cpu / case.total * 1e9, run.memory / MIB)
        report.row(
            f"`{name}`",
            str(turns[name]),
            *(f"{figure:.{places}f}" for figure, places in zip(figures, (2, 0, 2, 2, 0), strict=True)),
        )
    report.say()
    for name, text in failures.items():
        report.say(f"* `{name}` has a turn less: {text}")
    for goal in goals(case, found):
        verdict = "reached" if goal.met else "missed"
        report.say(f"* {goal.text}: {goal.value:.2f}{goal.unit}, {verdict} ({goal.wanted})")
