"""`/__…` on the HUB origin: what tests in other processes steer the emulator with.

    GET|DELETE /__journal            all exchanges; forget them
    GET|POST|DELETE /__faults        rules in force; add one (`Rule.from_json`) or a list; lift all
    POST /__repos                    add a repository: {"id", "files": {path: source}, ...fields of `Catalogue.add`}
    POST /__throttle                 {"origin", "total", "per_connection"} in bytes a second; null lifts
    POST /__limits                   {"bucket", "quota", "window"}; without a bucket lifts all

A source is a string (text), {"base64"}, {"path"}, {"random", "seed"} or {"sparse", "seed"} (sizes in bytes).
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.catalogue import Catalogue
from tests.hub.content import Random, Source, Sparse
from tests.hub.journal import Journal
from tests.hub.messages import Reply, Request, json_reply
from tests.hub.ratelimit import RateLimits
from tests.hub.rules import Rule, Rules
from tests.hub.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Answers the administrative paths."""

    catalogue: Catalogue
    journal: Journal
    rules: Rules
    throttle: Throttle
    limits: RateLimits

    def route(self, request: Request) -> Reply:
        """Answer a request; what is wrong with it is a 400 that says so."""
        try:
            value = json.loads(request.body) if request.body else None
            return json_reply(self._answer(request.method, request.path, value))
        except Exception as error:  # whatever it is, it came from the request
            return json_reply({"error": f"{type(error).__name__}: {error}"}, status=400)

    def _answer(self, method: str, path: str, value: Any) -> Any:
        actions: Mapping[tuple[str, str], Callable[[], Any]] = {
            ("GET", "/__journal"): lambda: [exchange.to_json() for exchange in self.journal.requests()],
            ("DELETE", "/__journal"): self.journal.clear,
            ("GET", "/__faults"): lambda: [rule.to_json() for rule in self.rules.all()],
            ("POST", "/__faults"): lambda: self._add_rules(value if isinstance(value, list) else [value]),
            ("DELETE", "/__faults"): self.rules.clear,
            ("POST", "/__repos"): lambda: self._add_repo(**value),
            ("POST", "/__throttle"): lambda: self.throttle.set(**value),
            ("POST", "/__limits"): lambda: self.limits.set(**value) if value else self.limits.clear(),
        }
        return actions[method, path]()

    def _add_rules(self, values: list[Mapping[str, Any]]) -> None:
        for rule in [Rule.from_json(value) for value in values]:
            self.rules.put(rule)

    def _add_repo(self, id: str, files: Mapping[str, Any], **fields: Any) -> dict[str, str]:  # noqa: A002
        repo = self.catalogue.add(id, {path: source_of(value) for path, value in files.items()}, **fields)
        return {"commit": repo.head.id}


def source_of(value: Any) -> Source:
    """Parse a source.

    Raises:
        ValueError: it has none of the forms above.
    """
    match value:
        case str():
            return value
        case {"base64": str(text)}:
            return base64.b64decode(text)
        case {"path": str(path)}:
            return Path(path)
        case {"random": int(size), "seed": int(seed)}:
            return Random(size, seed)
        case {"sparse": int(size), "seed": int(seed)}:
            return Sparse(size, seed)
        case _:
            raise ValueError(f"not a source: {value!r}")
