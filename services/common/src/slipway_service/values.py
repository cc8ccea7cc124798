"""What options hold: addresses, durations, sizes. Each is written in one way and shown as it is written."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator


@dataclass(frozen=True, slots=True)
class Kind:
    """How the table of options names a type, and how it shows a value."""

    name: str
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: whatever it resolves to

    @classmethod
    def parse(cls, text: object) -> "ListenAddress":
        """From `127.0.0.1:50051`, `[::1]:0` or `localhost:50051`.

        Raises:
            ValueError: no host, or no port of 0-65535.
        """
        if isinstance(text, ListenAddress):
            return text
        host, _, port = str(text).rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or (":" in bare and bare == host) or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:50051 or [::1]:50051")
        return cls(bare, int(port))


_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_duration(value: object) -> float:
    """Seconds, from a number of them or from `250ms`, `30s`, `5m`, `2h`, `1d`.

    Raises:
        ValueError: anything else.
    """
    return _quantity(value, _DURATION_UNITS, bare="s", example="250ms, 30s, 5m, 2h or 1d")


def parse_size(value: object) -> int:
    """Bytes, from a number of them or from `64MiB`, `1.5GB`.

    Raises:
        ValueError: anything else.
    """
    return int(_quantity(value, _SIZE_UNITS, bare="B", example="500MB, 64MiB or 2TiB"))


def show_duration(seconds: float) -> str:
    """`90` as `90s`, `0.25` as `250ms`, `3600` as `1h`: the largest unit that divides it."""
    for unit, length in reversed(_DURATION_UNITS.items()):
        count = seconds / length
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def show_size(size: int) -> str:
    """`1048576` as `1MiB`: the largest binary unit that divides it."""
    for power, letter in reversed([*enumerate("KMGT", start=1)]):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{letter}iB"
    return f"{size}B"


_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def rounded_size(size: int) -> str:
    """Bytes for people, in SI units with one decimal as the Hub and the command show them: `484.2 MB`."""
    power = 0
    while power < len(_DECIMAL_UNITS) - 1 and round(size / 1000**power, 1) >= 1000:
        power += 1
    return f"{size / 1000**power:.1f} {_DECIMAL_UNITS[power]}" if power else f"{size} B"


def _quantity(value: object, units: dict[str, Any], *, bare: str, example: str) -> float:
    match = _QUANTITY.fullmatch(str(value).strip())
    unit = (match[2] or bare) if match else ""
    if match is None or isinstance(value, bool) or unit not in units:
        raise ValueError(f"{value!r} is not like {example}")
    return float(match[1]) * float(units[unit])


Listen = Annotated[ListenAddress, PlainValidator(ListenAddress.parse), Kind("HOST:PORT")]
Duration = Annotated[float, BeforeValidator(parse_duration), Kind("DURATION", show_duration)]
Size = Annotated[int, BeforeValidator(parse_size), Kind("SIZE", show_size)]
Directory = Annotated[Path, AfterValidator(Path.expanduser), Kind("PATH")]
"""A path whose `~` is the user's home, also where no shell has expanded it."""
