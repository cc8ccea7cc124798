"""Filling a page of a list without ever exceeding what a client takes in one message."""

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from google.protobuf.message import Message

from slipway_service.validation import PageSize

M = TypeVar("M", bound=Message)

MOST_BYTES = 2 * 1024 * 1024
"""Of items in one page: half of gRPC's receive limit of 4 MiB, which clients are not asked to raise."""


def fill_page(items: Iterable[M], size: PageSize) -> tuple[list[M], bool]:
    """The first items, as many as were asked for and fit, at least one; and whether there are more."""
    page: list[M] = []
    room = MOST_BYTES
    for item in islice(items, size.items + 1):
        room -= item.ByteSize()
        if len(page) == size.items or (page and room < 0):
            return page, True
        page.append(item)
    return page, False
