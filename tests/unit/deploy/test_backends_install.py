"""How backends are installed: nothing half-made is trusted, and nothing is done twice."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.backends import install as cli
from deploy.backends.steps import Steps
from deploy.backends.store import InstallError, Slot, Stamp, default_root, digest_of, size_of
from tests.unit.deploy.fakes import REPOSITORY, FakeRecipe, never

STAMP = Stamp(digest="d", version="1.0", seconds=2.5, size_bytes=4096)


@pytest.fixture
def slot(root: Path) -> Slot:
    return Slot(root, "fake")


def leftovers(slot: Slot) -> list[Path]:
    """What the slot holds besides the build in force, its lock and its log."""
    in_force = slot.home.resolve()
    return [p for p in (slot.root / f".{slot.name}").iterdir() if p.name not in {"lock", "log"} and p != in_force]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/var/cache/me"}, Path("/var/cache/me/slipway/backends")),
        ({}, Path.home() / ".cache/slipway/backends"),
        ({"XDG_CACHE_HOME": ""}, Path.home() / ".cache/slipway/backends"),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache/slipway/backends"),
    ],
)
def test_backends_live_in_the_users_cache(environ: dict[str, str], expected: Path) -> None:
    assert default_root(environ) == expected


def test_a_digest_follows_the_contents_of_every_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("2")
    before = digest_of((first, second))
    assert digest_of((first, second)) == before
    second.write_text("3")
    assert digest_of((first, second)) != before


def test_size_is_what_the_disk_holds(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to(sys.executable)
    assert 100_000 <= size_of(tmp_path) < 200_000


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "d"}', '{"digest": "d", "surprise": 1}'])
def test_a_stamp_that_cannot_be_read_is_none(slot: Slot, text: str) -> None:
    slot.home.mkdir(parents=True)
    (slot.home / "stamp.json").write_text(text)
    assert slot.stamp() is None


def test_a_published_build_is_found_again(slot: Slot) -> None:
    with slot.locked(lambda: None), slot.building() as build:
        (build / "bin").mkdir()
        (build / "bin/fake").symlink_to(sys.executable)
        slot.publish(build, STAMP)
    assert slot.stamp() == STAMP
    assert slot.usable(["bin/fake"])
    assert not slot.usable(["bin/fake", "bin/other"])
    assert not slot.home.readlink().is_absolute(), "the cache can be restored at another path"


def test_a_new_build_replaces_the_old_one_without_a_gap(slot: Slot) -> None:
    stop = threading.Event()
    failures: list[OSError] = []

    def read() -> None:
        while not stop.is_set():
            try:
                (slot.home / "stamp.json").read_bytes()
            except OSError as error:
                failures.append(error)

    def publish() -> None:
        with slot.locked(lambda: None), slot.building() as build:
            slot.publish(build, STAMP)

    publish()
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        publish()
    stop.set()
    reader.join()
    assert failures == []
    assert leftovers(slot) == []


def test_what_something_else_put_in_its_place_is_left_alone(slot: Slot) -> None:
    (slot.home / "precious").mkdir(parents=True)
    with pytest.raises(InstallError, match="move it away"), slot.locked(lambda: None), slot.building() as build:
        slot.publish(build, STAMP)
    assert (slot.home / "precious").is_dir()
    assert leftovers(slot) == []


def test_installing_twice_builds_once(slot: Slot, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = FakeRecipe()
    cli.install(recipe, slot, never)
    cli.install(recipe, slot, never)
    assert len(recipe.builds) == 1
    assert capsys.readouterr().out.count(f"ready  {slot.home}/bin/fake") == 2


def test_changed_pins_build_again_and_remove_the_old_build(slot: Slot) -> None:
    recipe = FakeRecipe()
    cli.install(recipe, slot, never)
    recipe.digest = "other"
    assert cli.installed(recipe, slot) is None
    cli.install(recipe, slot, never)
    assert cli.installed(recipe, slot)
    assert len(recipe.builds) == 2
    assert leftovers(slot) == []


def test_a_program_that_went_away_is_installed_again(slot: Slot) -> None:
    recipe = FakeRecipe()
    cli.install(recipe, slot, never)
    (slot.home / "bin/fake").unlink()
    cli.install(recipe, slot, never)
    assert len(recipe.builds) == 2


def test_a_failed_build_leaves_the_old_one_in_force_and_nothing_else(slot: Slot) -> None:
    def fail(into: Path, steps: Steps) -> None:
        raise InstallError("no")

    cli.install(FakeRecipe(), slot, never)
    with pytest.raises(InstallError, match="no"):
        cli.install(FakeRecipe(digest="new", during=fail), slot, never)
    assert cli.installed(FakeRecipe(), slot)
    assert leftovers(slot) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from deploy.backends.store import Slot, Stamp
slot = Slot(Path(sys.argv[1]), "fake")
with slot.locked(lambda: None), slot.building() as build:
    (build / "bin").mkdir()
    (build / "bin/fake").symlink_to("/bin/true")
    (build / "stamp.json").write_text('{"digest": "d", "version": "1", "seconds": 1, "size_bytes": 1}')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_build_is_not_trusted_and_is_swept_by_the_next(slot: Slot) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, slot.root], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    (half_made,) = leftovers(slot)
    recipe = FakeRecipe()
    assert cli.installed(recipe, slot) is None
    cli.install(recipe, slot, never)
    assert len(recipe.builds) == 1
    assert not half_made.exists()


def test_of_two_installers_one_builds_and_the_other_waits(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    building, waiting = threading.Event(), threading.Event()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "waiting" in line:
            waiting.set()

    def hold(into: Path, steps: Steps) -> None:
        building.set()
        assert waiting.wait(30)

    monkeypatch.setattr(cli, "say", say)
    recipe = FakeRecipe(during=hold)
    first = threading.Thread(target=cli.install, args=(recipe, slot, never))
    first.start()
    assert building.wait(30)
    cli.install(recipe, slot, never)
    first.join()
    assert len(recipe.builds) == 1
    assert sum("ready" in line for line in lines) == 2
