"""Exceptions out of the groups that task groups put them in."""

from collections.abc import Iterator

from slipway_service.fault import Fault


def unwrapped(raised: BaseException) -> BaseException:
    """The only exception of a group, however deep; of several faults the first; any other group as it is."""
    found = list(_leaves(raised))
    if len(found) == 1 or all(isinstance(leaf, Fault) for leaf in found):
        return found[0]
    return raised


def _leaves(raised: BaseException) -> Iterator[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        for inner in raised.exceptions:
            yield from _leaves(inner)
    else:
        yield raised
