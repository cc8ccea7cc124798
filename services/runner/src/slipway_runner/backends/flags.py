"""Which options and variables a caller may add to a backend's command line and environment.

Allow-lists of exact names, each with the values it takes. What names a file, a URL, a host or a module is on none of
them: whoever may load a model can neither run a command nor read a file of his choice.
"""

import re
from collections.abc import Callable, Mapping

from slipway_service.fault import Fault, FieldViolation, Reason

Check = Callable[[str], str | None]
"""Returns what a value should be, or None if it is one."""

Rules = Mapping[str, Check]

SWITCH_ON = ("", "true")
"""The values with which an option that takes none is given; "false" leaves it out."""


def integer(low: int, high: int) -> Check:
    """Whole numbers from `low` to `high`."""

    def check(value: str) -> str | None:
        good = re.fullmatch(r"-?\d{1,18}", value, re.ASCII) and low <= int(value) <= high
        return None if good else f"a whole number from {low} to {high}"

    return check


def number(low: float, high: float) -> Check:
    """Decimal numbers from `low` to `high`."""

    def check(value: str) -> str | None:
        good = re.fullmatch(r"-?\d{1,12}(\.\d{1,12})?", value, re.ASCII) and low <= float(value) <= high
        return None if good else f"a number from {low:g} to {high:g}"

    return check


def choice(*values: str) -> Check:
    """One of `values`."""
    return lambda value: None if value in values else f"one of {', '.join(values)}"


def pattern(expression: str, words: str) -> Check:
    """What matches all of `expression`, which is told as `words`."""
    compiled = re.compile(expression, re.ASCII)
    return lambda value: None if compiled.fullmatch(value) else words


def switch(value: str) -> str | None:
    """Check the value of an option that takes none."""
    return None if value in (*SWITCH_ON, "false") else 'empty or "true" to give it, "false" to leave it out'


def flag_arguments(
    rules: Rules, given: Mapping[str, str], *, backend: str, known: frozenset[str] | None = None
) -> tuple[str, ...]:
    """Return the arguments for the caller's extra options.

    Args:
        rules: the options that may be given, by their exact names, without the dashes in front.
        given: what the caller gave.
        backend: its name, for the message.
        known: the options that the installed version has, with their dashes; None if that is not known.

    Raises:
        Fault: FLAG_NOT_ALLOWED, with every option that is not on the list or has a wrong value.
    """
    names = None if known is None else frozenset(option.removeprefix("--") for option in known)
    _refuse(Reason.FLAG_NOT_ALLOWED, "flags", rules, given, backend, names)
    arguments: list[str] = []
    for name, value in sorted(given.items()):
        if rules[name] is not switch:
            arguments += (f"--{name}", value)
        elif value in SWITCH_ON:
            arguments.append(f"--{name}")
    return tuple(arguments)


def checked_environment(rules: Rules, given: Mapping[str, str], *, backend: str) -> Mapping[str, str]:
    """Return the caller's extra variables. Raises Fault: ENVIRONMENT_NOT_ALLOWED, with every one that is wrong."""
    _refuse(Reason.ENVIRONMENT_NOT_ALLOWED, "environment", rules, given, backend, None)
    return dict(given)


def _refuse(
    reason: Reason, field: str, rules: Rules, given: Mapping[str, str], backend: str, known: frozenset[str] | None
) -> None:
    wrong: list[FieldViolation] = []
    for name, value in sorted(given.items()):
        if name not in rules:
            why = f"{backend} takes {', '.join(sorted(rules))}" if rules else f"{backend} takes none"
        elif known is not None and name not in known:
            why = f"the {backend} that is installed here does not have it"
        elif expected := rules[name](value):
            why = f"the value must be {expected}"
        else:
            continue
        wrong.append(FieldViolation(f"spec.{field}[{name}]", why))
    if wrong:
        told = "; ".join(f"{entry.field}: {entry.description}" for entry in wrong)
        raise Fault(reason, f"Remove or correct {told}.", fields=tuple(wrong), facts={"backend": backend})
