"""Requests become domain values here, and everything that is wrong with one is reported at once.

    with Fields() as fields:
        repo = fields.parse("spec.source.repo_id", RepoId.parse, request.spec.source.repo_id)
        size = fields.parse("page_size", PageSize.parse, request.page_size)

Parsers raise ValueError with what to send instead. Leaving the block raises one INVALID_FIELDS with all of them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar, cast

from slipway_service.fault import Fault, FieldViolation, Reason

T = TypeVar("T")
V = TypeVar("V")

MOST_SHOWN = 16
"""Violations that an answer names. Its trailers must stay below the 8 KiB at which gRPC begins to drop answers."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Fields:
    """Collects the violations of one request. As a context manager it raises them when its block ends."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._prefix = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An exception may come from the None that stands for a wrong field: what is wrong with it is the better answer.
        if self._violations and (error is None or isinstance(error, Exception)):
            raise self.fault() from None

    def parse(self, path: str, parser: Callable[[V], T], value: V) -> T:
        """The parsed value. For a wrong one it is None under T's name, which nothing outside the block ever sees."""
        try:
            return parser(value)
        except ValueError as error:
            self.reject(path, str(error))
            return cast("T", None)

    def parse_all(self, path: str, parser: Callable[[V], T], values: Iterable[V]) -> tuple[T, ...]:
        """Every value of a repeated field; violations are at `path[0]`, `path[1]` …"""
        return tuple(self.parse(f"{path}[{place}]", parser, value) for place, value in enumerate(values))

    def check(self, path: str, right: bool, description: str) -> None:
        """Reject the field unless `right`."""
        if not right:
            self.reject(path, description)

    def reject(self, path: str, description: str) -> None:
        """Note a violation: the field's path and what to send instead."""
        self._violations.append(FieldViolation(self._prefix + path, description))

    def under(self, path: str) -> "Fields":
        """The same collection for a nested message: paths are put behind `path` and a dot."""
        nested = Fields()
        nested._violations = self._violations
        nested._prefix = f"{self._prefix}{path}."
        return nested

    def fault(self) -> Fault:
        """The violations as one fault; beyond MOST_SHOWN they are only counted, in front, where no clipping reaches."""
        every = self._violations
        shown = tuple(every[:MOST_SHOWN])
        text = "; ".join(f"{found.field}: {found.description}" for found in shown)
        if len(every) > len(shown):
            text = f"{len(every)} fields are wrong, the first {len(shown)}: {text}"
        return Fault(Reason.INVALID_FIELDS, text, fields=shown)


def required(value: str) -> str:
    """A string that must not be empty."""
    if not value:
        raise ValueError("must not be empty")
    return value


def resource_id(value: str) -> str:
    """The last part of a resource name: 1-128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit."""
    if not _ID.fullmatch(value):
        raise ValueError("must be 1-128 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return value


@dataclass(frozen=True, slots=True)
class ResourceName:
    """`models/qwen`: a collection and the id of a resource in it."""

    collection: str
    id: str

    def __str__(self) -> str:
        return f"{self.collection}/{self.id}"

    @classmethod
    def of(cls, collection: str) -> Callable[[str], "ResourceName"]:
        """A parser for the names of a collection.

        Raises (the parser):
            ValueError: another collection, or no valid id.
        """

        def parse(name: str) -> ResourceName:
            found, slash, identity = name.partition("/")
            if found != collection or not slash or not _ID.fullmatch(identity):
                raise ValueError(f"must be '{collection}/' and an id, for example '{collection}/qwen-7b'")
            return cls(collection, identity)

        return parse


@dataclass(frozen=True, slots=True)
class PageSize:
    """How many items a page holds, 1 to 1000; https://google.aip.dev/158 has it coerced, not refused."""

    DEFAULT = 50
    MOST = 1000  # a page of the largest resources stays far below gRPC's 4 MiB

    items: int

    @classmethod
    def parse(cls, asked: int) -> "PageSize":
        """Unset or 0 is the default, more than the most is the most.

        Raises:
            ValueError: negative.
        """
        if asked < 0:
            raise ValueError("must not be negative; leave it out for the default")
        return cls(min(asked, cls.MOST) or cls.DEFAULT)
