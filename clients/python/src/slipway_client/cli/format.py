"""Numbers as people read them."""

import math

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_COUNTS = ("", "k", "M", "B", "T")


def size(bytes_: float) -> str:
    """Bytes in SI units with one decimal, as the Hub shows them: `484.2 MB`."""
    power = _power(bytes_, len(_SIZES))
    return f"{bytes_:.0f} B" if power == 0 else f"{bytes_ / 1000**power:.1f} {_SIZES[power]}"


def size_of(done: float, total: float) -> str:
    """Two sizes in the unit of the second: `231.0 / 484.2 MB`."""
    power = _power(total, len(_SIZES))
    digits = 1 if power else 0
    return f"{done / 1000**power:.{digits}f} / {total / 1000**power:.{digits}f} {_SIZES[power]}"


def count(number: float) -> str:
    """A count in three digits or so: `12.3k`, `1.2M`, `7B`."""
    power = _power(number, len(_COUNTS))
    text = f"{number / 1000**power:.1f}" if power else f"{number:.0f}"
    return text.removesuffix(".0") + _COUNTS[power]


def seconds(duration: float) -> str:
    """A duration in its two largest units: `0.4 s`, `12 s`, `1 m 12 s`, `2 h 5 m`, `3 d`."""
    if duration < 9.95:
        return f"{max(duration, 0.0):.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d"


def commit(sha: str) -> str:
    """The beginning of a commit, as the Hub shows it."""
    return sha[:7]


def plural(number: int, noun: str) -> str:
    """`1 file`, `3 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _power(number: float, powers: int) -> int:
    """The power of 1000 to show a number in: what rounds to 1000.0 is 1.0 of the next one."""
    if number < 1000:
        return 0
    power = int(math.log10(number) // 3)
    if round(number / 1000**power, 1) >= 1000:
        power += 1
    return min(power, powers - 1)
