import pytest
from slipway_registry.transfer.effort import Effort, wanted


@pytest.mark.parametrize(
    ("connections", "share", "most", "expected"),
    [
        (1, 0.0, 8, 8),  # nothing comes at all
        (1, 0.02, 8, 8),  # 25 MB/s
        (1, 0.2, 8, 5),
        (2, 0.4, 8, 5),
        (1, 0.9, 8, 1),  # this one keeps up with the link already
        (4, 1.6, 8, 4),  # as do these: none is taken back
        (1, 0.9, 1, 1),
    ],
)
def test_connections_are_wanted_as_long_as_they_wait(connections: int, share: float, most: int, expected: int) -> None:
    assert wanted(connections, share, most) == expected


def test_effort_adds_up() -> None:
    effort = Effort()
    for _ in range(4):
        effort.add(0.25)
    assert effort.seconds == 1.0
