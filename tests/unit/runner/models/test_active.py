import pytest
from slipway_runner.backends.base import Task
from slipway_runner.models.active import ActiveModels
from slipway_runner.models.record import Activation
from slipway_service.fault import Fault, Reason


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        (None, Activation.ALWAYS, "new"),
        (None, Activation.IF_NONE, "new"),
        (None, Activation.NEVER, None),
        ("old", Activation.ALWAYS, "new"),
        ("old", Activation.IF_NONE, "old"),
        ("old", Activation.NEVER, "old"),
    ],
)
def test_what_a_first_load_does(before: str | None, wish: Activation, after: str | None) -> None:
    active = ActiveModels({Task.GENERATE: before} if before else None)
    assert active.activate(Task.GENERATE, "new", wish) is (after == "new")
    assert active.get(Task.GENERATE) == after


def test_tasks_do_not_meet() -> None:
    active = ActiveModels()
    active.activate(Task.GENERATE, "chat", Activation.ALWAYS)
    active.activate(Task.EMBED, "vectors", Activation.ALWAYS)
    assert active.all() == {Task.GENERATE: "chat", Task.EMBED: "vectors"}
    assert active.drop("vectors")
    assert not active.drop("vectors")
    assert active.get(Task.GENERATE) == "chat"


@pytest.mark.parametrize(("before", "expected"), [(None, ""), ("old", "old"), ("old", None), (None, None)])
def test_a_set_whose_expectation_holds(before: str | None, expected: str | None) -> None:
    active = ActiveModels({Task.GENERATE: before} if before else None)
    assert active.set(Task.GENERATE, "new", expected) == before
    assert active.get(Task.GENERATE) == "new"


@pytest.mark.parametrize(("before", "expected"), [("old", ""), ("old", "older"), (None, "old")])
def test_a_set_whose_expectation_does_not_hold_changes_nothing(before: str | None, expected: str) -> None:
    active = ActiveModels({Task.GENERATE: before} if before else None)
    with pytest.raises(Fault) as refused:
        active.set(Task.GENERATE, "new", expected)
    assert refused.value.reason is Reason.ACTIVE_MISMATCH
    assert refused.value.facts == {"active": before or ""}
    assert active.get(Task.GENERATE) == before
