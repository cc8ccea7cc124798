"""What the gateway answers itself, in the form that OpenAI's clients read errors in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request goes to no model.

    Attributes:
        status: of HTTP.
        code: what programs branch on: one of our reasons, or OpenAI's own code where it has one.
        text: for a person.
        retry_after: seconds after which asking again makes sense; None says nothing about that.
        facts: further members of the error object.
        passing: the next table may have another answer.
        wants: id of a model that would be loaded for this request.
    """

    status: int
    code: str
    text: str
    retry_after: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    passing: bool = False
    wants: str = ""

    def document(self) -> Mapping[str, Any]:
        """The error object (https://platform.openai.com/docs/guides/error-codes), our facts beside its members."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": f"{self.code}: {self.text}", "type": kind, "code": self.code, "param": None}
        return {"error": {**error, **self.facts}}

    def headers(self) -> Mapping[str, str]:
        """Headers that belong to it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
