"""Recorded output of backends; see its README."""

from pathlib import Path

DATA = Path(__file__).parents[3] / "data" / "backends"


def recorded(name: str) -> bytes:
    return (DATA / name).read_bytes()


LOGS = tuple(sorted(path.name for path in DATA.glob("*.log")))
