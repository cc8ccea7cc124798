"""A cgroup for each backend, where the host lets us make one. It finds and kills what group, session and tag might
miss.

cgroup v2 only (Documentation/admin-guide/cgroup-v2.rst). Without it everything works, just with those three.
"""

import contextlib
from collections.abc import Collection
from pathlib import Path

# Where cgroup2 is mounted: alone, or beside version 1 ("hybrid").
_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def find_root(instance: str) -> Path | None:
    """A cgroup of the runner `instance` to make others in, made if need be; None where this process may not."""
    for mount in _MOUNTS:
        if not (mount / "cgroup.subtree_control").exists():
            continue
        root = mount / _own_path().lstrip("/") / f"slipway-{instance}"
        try:
            root.mkdir(exist_ok=True)
        except OSError:
            continue
        with contextlib.suppress(OSError):  # where it is delegated to us, each family's kills for memory can be counted
            (root / "cgroup.subtree_control").write_text("+memory")
        return root
    return None


def _own_path() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return path
    return "/"


def make(root: Path | None, name: str) -> Path | None:
    """A new cgroup in `root`, or None without a root, without the right to make one, or when it is there already."""
    if root is None:
        return None
    made = root / name
    try:
        made.mkdir()
    except OSError:
        return None
    return made


# The child itself goes there before it becomes the program: were we to move it, it might have forked before.
_JOIN = '{ echo $$ > "$1"; } 2>/dev/null; shift; exec "$@"'


def joining(cgroup: Path | None, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that runs `argv` in a cgroup, as the same process; `argv` itself without one."""
    if cgroup is None:
        return argv
    return ("/bin/sh", "-c", _JOIN, "sh", str(cgroup / "cgroup.procs"), *argv)


def pids(cgroup: Path | None) -> frozenset[int]:
    """Who is in it; nobody when there is none."""
    if cgroup is None:
        return frozenset()
    try:
        return frozenset(int(line) for line in (cgroup / "cgroup.procs").read_text().split())
    except OSError:
        return frozenset()


def kill(cgroup: Path) -> None:
    """SIGKILL everything in it at once, forks under way included (since Linux 5.14)."""
    with contextlib.suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")


def remove(cgroup: Path) -> None:
    """Remove it if it is empty."""
    with contextlib.suppress(OSError):
        cgroup.rmdir()


def others(root: Path | None, keep: Collection[str]) -> tuple[Path, ...]:
    """What an earlier runner left in `root`, but for the families in `keep`."""
    return tuple(one for one in root.glob("*/") if one.name not in keep) if root else ()
