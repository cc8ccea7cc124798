"""Sizes and durations as people write them on a command line, in the same way as the services' options."""

import re

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)
}
_COUNT_UNITS = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Seconds, from `250ms`, `30s`, `5m`, `2h`, `1d`, or from a number of them.

    Raises:
        ValueError: anything else.
    """
    return _quantity(text, _DURATION_UNITS | {"": 1.0}, "a duration such as 30s, 5m, 2h or 7d")


def parse_size(text: str) -> int:
    """Bytes, from `64MiB`, `1.5GB`, or from a number of them.

    Raises:
        ValueError: anything else.
    """
    return int(_quantity(text, _SIZE_UNITS | {"": 1}, "a size such as 500MB, 64GiB or 2TB"))


def parse_count(text: str) -> int:
    """A count of parameters, from `500M`, `7B`, `0.5B`, or as a number.

    Raises:
        ValueError: anything else.
    """
    return int(_quantity(text, _COUNT_UNITS | {"": 1}, "a count such as 500M, 7B or 1.5B"))


def _quantity(text: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    found = _QUANTITY.fullmatch(text.strip())
    if found is None or found[2] not in units:
        raise ValueError(f"{text!r} is not {example}")
    return float(found[1]) * units[found[2]]
