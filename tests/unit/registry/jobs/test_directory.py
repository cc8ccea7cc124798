import subprocess
import sys
from pathlib import Path

import pytest
from slipway_registry.jobs import directory
from slipway_registry.jobs.directory import DirectoryTakenError, file_system, locked_directory

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /mnt rw,relatime - tmpfs tmpfs rw
31 30 0:41 / /mnt/home\\040share rw,relatime - nfs4 server:/home rw
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from slipway_registry.jobs.directory import locked_directory
with locked_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryTakenError, match=str(other.pid)), locked_directory(tmp_path / "state"):
            pass
        other.kill()
    with locked_directory(tmp_path / "state"):
        pass


def test_it_is_made_where_it_is_not(tmp_path: Path) -> None:
    with locked_directory(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var/lib", "ext4"), ("/mnt", "tmpfs"), ("/mnt/x", "tmpfs"), ("/mnt/home share/x", "nfs4"), ("/mnt2", "ext4")],
)
def test_file_systems_are_told_apart(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system(Path(path), mounts) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "file_system", lambda _: "nfs4")
    with pytest.raises(DirectoryTakenError, match="local disk"), locked_directory(tmp_path):
        pass
