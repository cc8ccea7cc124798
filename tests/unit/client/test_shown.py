"""What people read: numbers, steps, displays, exit codes."""

import io
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from rich.console import Console
from slipway.registry.v1.download_pb2 import Download, DownloadProgress, DownloadState, PauseReason, QueueReason
from slipway.runner.v1.model_pb2 import LoadProgress, LoadStage, Model, ModelState
from slipway_client.cli import exit_codes
from slipway_client.cli import format as fmt
from slipway_client.cli.display import BarDisplay, LineDisplay
from slipway_client.cli.output import Output, SafeConsole
from slipway_client.cli.steps import Step, download_step, model_step
from slipway_client.errors import FAMILIES


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (484_220_320, "484.2 MB"),
        (999_949_999, "999.9 MB"),
        (999_950_000, "1.0 GB"),
        (15_231_233_024, "15.2 GB"),
        (2.5e18, "2500.0 PB"),
    ],
)
def test_sizes(bytes_: float, text: str) -> None:
    assert fmt.size(bytes_) == text


def test_other_numbers() -> None:
    assert fmt.size_of(231_000_000, 484_220_320) == "231.0 / 484.2 MB"
    assert fmt.size_of(1, 2) == "1 / 2 B"
    assert [fmt.count(number) for number in (7, 12_345, 999_960, 7e9, 8_190_735_360)] == [
        "7",
        "12.3k",
        "1M",
        "7B",
        "8.2B",
    ]
    assert [fmt.seconds(duration) for duration in (-1, 0.42, 9.96, 59.6, 72, 7500, 200_000)] == [
        "0.0 s",
        "0.4 s",
        "10 s",
        "1 m 0 s",
        "1 m 12 s",
        "2 h 5 m",
        "2 d",
    ]
    assert fmt.plural(1, "file") == "1 file"
    assert fmt.plural(3, "file") == "3 files"


def failure(reason: str) -> Status:
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=f"{reason}: look there")
    status.details.add().Pack(ErrorInfo(reason=reason, domain="slipway"))
    return status


def download(state: str, **fields: object) -> Download:
    return Download(name="downloads/1", state=DownloadState.Value(f"DOWNLOAD_STATE_{state}"), **fields)  # type: ignore[arg-type]


def seconds(number: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=number))
    return duration


HALF = DownloadProgress(done_bytes=50_000_000, total_bytes=100_000_000, bytes_per_second=5_000_000, eta=seconds(10))


@pytest.mark.parametrize(
    ("resource", "doing", "mark", "numbers"),
    [
        (
            download("QUEUED", queue_reason=QueueReason.QUEUE_REASON_DISK, message="waits for disk"),
            "waiting for disk space",
            "",
            "",
        ),
        (
            download("QUEUED", queue_reason=QueueReason.QUEUE_REASON_SLOT, message="waits for slot"),
            "waiting for a free slot",
            "",
            "",
        ),
        (download("RUNNING", progress=HALF), "downloading", "", "50.0 / 100.0 MB · 5.0 MB/s · 10 s left"),
        (download("VERIFYING", progress=HALF), "verifying", "", ""),
        (
            download("BACKING_OFF", error=failure("HUB_UNREACHABLE")),
            "trying again soon",
            "HUB_UNREACHABLE: look there",
            "",
        ),
        (download("PAUSED"), "paused", "to go on: slipway resume 1", ""),
        (
            download("PAUSED", pause_reason=PauseReason.PAUSE_REASON_CREDENTIAL_REQUIRED),
            "paused",
            "it needs your Hub token again: set SLIPWAY_HF_TOKEN and slipway resume 1",
            "",
        ),
        (download("FAILED"), "failed", "", ""),
    ],
)
def test_steps_of_a_download(resource: Download, doing: str, mark: str, numbers: str) -> None:
    step = download_step(resource)
    assert (step.doing, step.mark, step.numbers) == (doing, mark, numbers)


def loading(stage: str, **progress: object) -> Model:
    value = LoadStage.Value(f"LOAD_STAGE_{stage}")
    return Model(
        name="models/m",
        backend="vllm",
        state=ModelState.MODEL_STATE_LOADING,
        load_progress=LoadProgress(stage=value, **progress),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("resource", "doing", "mark", "numbers", "fraction"),
    [
        (loading("QUEUED"), "waiting for a slot or memory", "", "", None),
        (loading("FETCHING", done_bytes=1, total_bytes=4), "downloading", "", "1 / 4 B", 0.25),
        (loading("FETCHING", detail="downloading"), "downloading", "", "", None),
        (loading("FETCHING", detail="download waits for slot"), "downloading", "", "download waits for slot", None),
        (
            loading("FETCHING", done_bytes=1, total_bytes=4, detail="the registry does not answer"),
            "downloading",
            "",
            "1 / 4 B · the registry does not answer",
            0.25,
        ),
        (loading("STARTING", detail="waiting for the port"), "starting vllm", "", "waiting for the port", None),
        (
            loading("LOADING_WEIGHTS", done_shards=1, total_shards=4, eta=seconds(3)),
            "loading weights",
            "shard 1/4",
            "shard 1/4 · 3.0 s left",
            0.25,
        ),
        (
            loading("LOADING_WEIGHTS", done_shards=1, total_shards=4, done_bytes=2, total_bytes=4),
            "loading weights",
            "shard 1/4",
            "shard 1/4 · 2 / 4 B",
            0.5,
        ),
        (loading("WARMING_UP"), "warming up", "", "", None),
        (
            Model(state=ModelState.MODEL_STATE_RESTARTING, error=failure("BACKEND_EXITED")),
            "restarting soon",
            "BACKEND_EXITED: look there",
            "",
            None,
        ),
        (Model(state=ModelState.MODEL_STATE_UNLOADING), "unloading", "", "", None),
    ],
)
def test_steps_of_a_model(resource: Model, doing: str, mark: str, numbers: str, fraction: float | None) -> None:
    step = model_step(resource)
    assert (step.doing, step.mark, step.numbers, step.fraction) == (doing, mark, numbers, fraction)


def test_every_state_and_stage_has_a_step() -> None:
    for state in DownloadState.values():
        assert download_step(Download(state=state)).doing
    for model_state in ModelState.values():
        assert model_step(Model(state=model_state)).doing
    keys = {
        model_step(loading(stage.removeprefix("LOAD_STAGE_"))).doing for stage in LoadStage.DESCRIPTOR.values_by_name
    }
    assert len(keys) == len(LoadStage.values())


STEPS = (
    Step(key="q", doing="waiting", done="waited", is_waiting=True),
    Step(key="d", doing="downloading", done="downloaded", fraction=0.5, numbers="1 / 2 B", result="2 B"),
    Step(key="b", doing="trying again soon", done="waited", mark="HUB_ERROR: x", is_setback=True),
    Step(key="d", doing="downloading", done="downloaded", fraction=1.0, numbers="2 / 2 B", result="2 B"),
    Step(key="w", doing="loading", done="loaded", mark="shard 0/2"),
    Step(key="w", doing="loading", done="loaded", mark="shard 1/2"),
    Step(key="w", doing="loading", done="loaded", mark="shard 1/2", fraction=0.6),
)


def test_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with LineDisplay(Console(file=out, width=100)) as shown:
        for step in STEPS:
            shown.show(step)
        shown.note("lost it")
        shown.finish()
    assert out.getvalue().splitlines() == [
        "waiting",
        "downloading: 2 B",
        "trying again soon: HUB_ERROR: x",
        "downloading: 2 B",
        "loading: shard 0/2",
        "loading: shard 1/2",
        "lost it",
    ]


def terminal(width: int) -> SafeConsole:
    return SafeConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)


def test_a_line_is_kept_for_each_step_on_a_terminal() -> None:
    console = terminal(100)
    assert isinstance(console.file, io.StringIO)
    times = iter(range(100))
    shown = BarDisplay(console, clock=lambda: float(next(times)) / 2)
    for step in STEPS:
        shown.show(step)
    shown.finish()
    assert console.file.getvalue().splitlines() == [
        "• downloading            0.5 s",
        "• trying again soon      HUB_ERROR: x",
        "✓ downloaded             2 B · 0.5 s",
        "✓ loaded                 0.5 s",
    ]


def test_no_line_is_kept_of_what_was_nothing() -> None:
    console = terminal(100)
    assert isinstance(console.file, io.StringIO)
    times = iter((0.0, 5.0, 5.2, 5.2, 6.0, 6.0))
    shown = BarDisplay(console, clock=lambda: next(times))
    shown.show(model_step(loading("UNSPECIFIED")))
    shown.show(model_step(loading("FETCHING", detail="downloading")))
    shown.show(model_step(loading("VERIFYING")))
    shown.show(model_step(Model(state=ModelState.MODEL_STATE_LOADED)))
    shown.finish()
    assert console.file.getvalue().splitlines() == ["✓ checked files          0.8 s"]


@pytest.mark.parametrize("width", [30, 60, 100])
def test_the_bar_never_fills_the_line(width: int) -> None:
    console = terminal(width)
    assert isinstance(console.file, io.StringIO)
    shown = BarDisplay(console, clock=lambda: 0.0)
    numbers = "231.0 / 484.2 MB · 12.3 MB/s · 21 s left"
    shown.show(Step(key="d", doing="downloading", done="", fraction=0.5, numbers=numbers))
    console.print(shown.render())
    [line] = console.file.getvalue().splitlines()
    assert len(line.rstrip()) <= width - 3
    assert ("━" in line, numbers in line) == (width > 30, width == 100)


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (40, "NAME          REF       SIZE  WHAT"),
        (34, "NAME          REF       SIZE  WHAT"),
        (33, "NAME              SIZE  WHAT"),
        (26, "NAME          WHAT"),
        (20, "NAME          WHAT"),
    ],
)
def test_a_table_leaves_columns_out_before_it_cuts(width: int, head: str) -> None:
    output = Output()
    output.console = terminal(width)
    assert isinstance(output.console.file, io.StringIO)
    rows = [("org/model-12", "main", "484.2 MB", "Q4"), ("b", "v1", "1 B", "")]
    output.table(("NAME", "REF", "SIZE", "WHAT"), rows, right=("SIZE",), spare=("REF", "SIZE"))
    first, second, _ = output.console.file.getvalue().splitlines()
    assert first.rstrip() == head
    assert len(second.rstrip()) <= width
    assert ("484.2 MB" in second) == ("SIZE" in head)


def test_every_family_has_an_exit_code_of_its_own() -> None:
    codes = [exit_codes.exit_code(family("X", "")) for family in FAMILIES]
    assert len(set(codes)) == len(codes)
    assert exit_codes.WORKED not in codes


def test_the_documentation_has_the_exit_codes() -> None:
    text = Path("docs/cli.md").read_text()
    for row in exit_codes.TABLE:
        assert f"| {row.code} | {row.word} | {row.meaning} |" in text
