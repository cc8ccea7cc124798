"""How long models have been idle, whatever is done to the clock."""

from dataclasses import replace
from pathlib import Path

import pytest
from slipway_runner.backends.base import Task
from slipway_runner.models.record import Model
from slipway_runner.models.spec import PathSource, Spec
from slipway_runner.models.states import State
from slipway_runner.models.usage import Idleness

TTL = 60.0
WALL = 1e9


def model(uid: str = "a", *, loaded: float = WALL, used: float | None = None) -> Model:
    spec = Spec(source=PathSource(path=Path("/m.gguf")), idle_ttl=TTL)
    return Model(
        id="m",
        uid=uid,
        spec=spec,
        state=State.LOADED,
        task=Task.GENERATE,
        create_time=WALL,
        load_time=loaded,
        use_time=used,
        update_time=WALL,
    )


def test_it_is_idle_when_its_time_is_over_and_not_before() -> None:
    idleness = Idleness()
    idleness.look([model()], 0.0, WALL)
    assert not idleness.over(model(), TTL - 1)
    assert idleness.over(model(), TTL)
    assert not idleness.over(replace(model(), state=State.LOADING), TTL)
    assert not idleness.over(replace(model(), spec=replace(model().spec, idle_ttl=0.0)), TTL)


def test_a_use_begins_it_anew_at_the_time_of_the_use() -> None:
    idleness = Idleness()
    idleness.look([model()], 0.0, WALL)
    idleness.look([model(used=WALL + 20)], 30.0, WALL + 30)
    assert not idleness.over(model(), 79.0)
    assert idleness.over(model(), 80.0)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_setting_the_clock_changes_nothing(step: float) -> None:
    idleness = Idleness()
    idleness.look([model()], 0.0, WALL)
    idleness.look([model(), model("new", loaded=WALL + 5)], 10.0, WALL + 10 + step)
    for one in (model(), model("new")):
        assert not idleness.over(one, 59.0)
        assert idleness.over(one, 70.0)


def test_what_an_earlier_runner_loaded_has_been_idle_before_this_one() -> None:
    idleness = Idleness()
    idleness.look([model(loaded=WALL - 100, used=WALL - 50)], 0.0, WALL)
    assert not idleness.over(model(), 9.0)
    assert idleness.over(model(), 10.0)
