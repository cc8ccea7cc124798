"""Gateways' processes, found by what marks them."""

from pathlib import Path

from slipway_runner.process import members, proc
from slipway_runner.process.proc import ProcessId


def gateways_below(folder: Path) -> list[ProcessId]:
    """Those whose state directory lies in a folder."""
    return [
        one.id
        for one in proc.processes()
        if not one.ended and proc.environ(one.id.pid).get(members.RUNNER_TAG, "").startswith(f"gateway of {folder}")
    ]


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    pages = (proc.PROC / str(pid) / "statm").read_text().split()[1]
    return int(pages) * 4096


def limits(pid: int) -> list[str]:
    """Its resource limits, line by line (proc(5))."""
    return (proc.PROC / str(pid) / "limits").read_text().splitlines()
