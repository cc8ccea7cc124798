"""What of a download's bytes was there before, and what came in this attempt."""

from slipway_registry.jobs.obtain import Standing
from slipway_registry.jobs.records import Progress
from slipway_registry.jobs.run import Run
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import FilePath

FILES = [RepoFile(path=FilePath(name), size_bytes=100, blob_id=name * 40) for name in "abcd"]
WHOLE = Standing(verified=True)
NOTHING = Standing(verified=False)


def part(count: int) -> Standing:
    return Standing(verified=False, partial_bytes=count)


def figures(run: Run) -> tuple[int, int, int]:
    """Cached, resumed, done."""
    shown = run.progress(0.0)
    return shown.cached_bytes, shown.resumed_bytes, shown.done_bytes


def test_at_first_what_is_whole_is_cached_and_what_is_a_part_is_resumed() -> None:
    assert figures(Run.begin(FILES, [WHOLE, part(30), NOTHING, NOTHING], Progress(), first=True)) == (100, 30, 130)


def test_files_that_an_earlier_attempt_has_completed_are_resumed() -> None:
    before = Progress(done_bytes=250, cached_bytes=100)
    assert figures(Run.begin(FILES, [WHOLE, WHOLE, part(50), NOTHING], before, first=False)) == (100, 150, 250)


def test_what_has_gone_meanwhile_is_neither() -> None:
    before = Progress(done_bytes=250, cached_bytes=200)
    assert figures(Run.begin(FILES, [WHOLE, NOTHING, part(50), NOTHING], before, first=False)) == (100, 50, 150)


def test_bytes_that_turn_out_to_be_wrong_are_not_resumed() -> None:
    run = Run.begin(FILES, [WHOLE, part(30), part(50), NOTHING], Progress(), first=True)
    run.missing[0].give_up()
    run.reset()
    assert figures(run) == (100, 50, 150)


def test_another_look_in_the_same_attempt_makes_nothing_resumed() -> None:
    run = Run.begin(FILES, [WHOLE, part(30), NOTHING, NOTHING], Progress(), first=True)
    before = run.progress(0.0)
    again = Run.begin(FILES, [WHOLE, WHOLE, WHOLE, NOTHING], before, first=False, resumed_at_most=before.resumed_bytes)
    assert figures(again) == (100, 30, 300)
