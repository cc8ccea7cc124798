"""Lines of a build's output, on a clock of the test's own."""

from dataclasses import dataclass, field, replace

import pytest
from slipway_registry.jobs.records import Download, Failure, Progress, State
from slipway_registry.preload.report import LINE_INTERVAL, Report
from slipway_registry.preload.targets import Choice, Target
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit
from slipway_service.weights.selection import SelectedFiles

from tests.unit.registry.jobs.samples import download

TARGET = Target.parse("embedding", "org/m", "", Choice())


@dataclass
class Page:
    """What is written, at which time."""

    lines: list[str] = field(default_factory=list)
    now: float = 0.0

    def report(self) -> Report:
        return Report(self.lines.append, lambda: self.now)


@pytest.fixture
def page() -> Page:
    return Page()


def running(done: int, **figures: float) -> Download:
    progress = Progress(done_bytes=done, total_bytes=1000, **figures)  # type: ignore[arg-type]
    return replace(download(), state=State.RUNNING, progress=progress)


def test_a_line_for_each_interval(page: Page) -> None:
    report = page.report()
    report.names(running(0), TARGET)
    for second in range(12):
        page.now = float(second)
        report.download(running(second * 10))
    assert LINE_INTERVAL == 5
    assert page.lines == ["embedding: 5 %, 50 B of 1.0 kB", "embedding: 10 %, 100 B of 1.0 kB"]


def test_rate_and_rest_where_they_are_known(page: Page) -> None:
    report = page.report()
    report.download(running(0))
    page.now = LINE_INTERVAL
    report.download(running(500, bytes_per_second=2_500_000.0, eta_seconds=75.4))
    (line,) = page.lines
    assert line.endswith(": 50 %, 500 B of 1.0 kB, 2.5 MB/s, 75 s left")


def test_a_setback_is_told_at_once_and_once(page: Page) -> None:
    report = page.report()
    report.names(running(0), TARGET)
    failure = Failure(reason=Reason.HUB_UNREACHABLE, text="The Hub could not be reached.")
    waiting = replace(running(10), state=State.BACKING_OFF, failure=failure)
    report.download(waiting)
    report.download(waiting)
    assert page.lines == [
        "embedding: HUB_UNREACHABLE: The Hub could not be reached.; the download goes on later",
    ]


def test_what_was_resolved(page: Page) -> None:
    selected = SelectedFiles(files=(), variant="Q4_K_M", explanation="Others were left out.")
    page.report().resolved(TARGET, Commit("c" * 40), selected)
    assert page.lines == [f"embedding: {'c' * 40}, Q4_K_M, 0 files, 0 B", "embedding: Others were left out."]


@pytest.mark.parametrize(("pause", "told"), [(1.0, "1.0 s"), (30.0, "30 s"), (600.0, "10 min"), (9000.0, "2.5 h")])
def test_waiting_before_the_start(page: Page, pause: float, told: str) -> None:
    page.report().waits(TARGET, Fault(Reason.HUB_RATE_LIMITED, "Too many requests."), pause)
    assert page.lines == [f"embedding: HUB_RATE_LIMITED: Too many requests.; trying again in {told}"]
