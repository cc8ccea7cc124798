"""When a fault strikes: rules that match requests and count them."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tests.hub.faults import FAULTS, Fault, to_json
from tests.hub.messages import OriginName, Request


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault for the requests that match.

    ``path`` is a regular expression searched in the raw target, ``origin`` and ``method`` narrow it down. The
    first ``skip`` matches are left alone, the next ``times`` (None: all) are struck.
    """

    fault: Fault
    path: str = ""
    origin: OriginName | None = None
    method: str | None = None
    skip: int = 0
    times: int | None = None
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse `POST /__faults`: the rule's fields, ``action``, and that fault's own fields, all in one object;
        counts are ignored.

        Raises:
            ValueError: the action is unknown, or a field does not belong to it.
        """
        rest = {name: item for name, item in value.items() if name not in ("seen", "struck")}
        matching = {name: rest.pop(name) for name in _MATCHING if name in rest}
        action = rest.pop("action", None)
        if action not in FAULTS:
            raise ValueError(f"unknown action {action!r}; there are {', '.join(FAULTS)}")
        try:
            return cls(fault=FAULTS[action](**rest), **matching)
        except TypeError as error:
            raise ValueError(f"{action}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The rule with its counts."""
        own = {name: getattr(self, name) for name in (*_MATCHING, "seen", "struck")}
        return own | to_json(self.fault)

    def takes(self, origin: OriginName, request: Request, span: tuple[int, int]) -> bool:
        """Count the request if it matches; whether it is struck."""
        if self.origin not in (None, origin) or self.method not in (None, request.method):
            return False
        if not re.search(self.path, request.target):
            return False
        covers = self.fault.covers
        if covers is not None and (request.method == "HEAD" or not span[0] <= covers < span[1]):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.struck >= self.times):
            return False
        self.struck += 1
        return True


_MATCHING = ("path", "origin", "method", "skip", "times")


class Rules:
    """All rules in force; several may strike one request, in the order they were added."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        path: str = "",
        *,
        origin: OriginName | None = None,
        method: str | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> Rule:
        """Put a rule in force; the returned object shows how often it has ``struck``."""
        rule = Rule(fault=fault, path=path, origin=origin, method=method, skip=skip, times=times)
        self.put(rule)
        return rule

    def put(self, rule: Rule) -> None:
        """Put a parsed rule in force."""
        re.compile(rule.path)
        with self._lock:
            self._rules.append(rule)

    def remove(self, rule: Rule) -> None:
        """Lift one rule."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Lift every rule."""
        with self._lock:
            self._rules.clear()

    def all(self) -> list[Rule]:
        """The rules in force."""
        with self._lock:
            return list(self._rules)

    def strike(self, origin: OriginName, request: Request, span: tuple[int, int]) -> list[Fault]:
        """What goes wrong with this request, whose reply carries bytes ``span`` of its resource."""
        with self._lock:
            return [rule.fault for rule in self._rules if rule.takes(origin, request, span)]
