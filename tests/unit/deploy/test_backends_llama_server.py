"""Which llama-server is taken: the first on PATH that works, and a compiled one when there is none."""

import re
from pathlib import Path

import pytest

from deploy.backends import install as cli
from deploy.backends import llama_server
from deploy.backends.llama_server import NO_COMPILER, LlamaServer, jobs, on_path, version_of
from deploy.backends.store import InstallError, Slot
from tests.unit.deploy.fakes import WORKING, never, script


def test_a_working_llama_server_on_path_is_linked(tmp_path: Path, root: Path, compilerless: None) -> None:
    good = script(tmp_path / "good/llama-server", WORKING)
    path = f"{tmp_path / 'nowhere'}::{good.parent}"
    slot = Slot(root, "llama-server")
    recipe = LlamaServer(search_path=path, ours=root)
    cli.install(recipe, slot, never)
    assert (slot.home / "bin/llama-server").readlink() == good
    stamp = cli.installed(recipe, slot)
    assert stamp
    assert stamp.version == "7 (abc)"


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/no/such/interpreter\n",
        '#!/bin/sh\nexec "$(dirname "$0")/neighbour" "$@"\n',  # works where it is, and not through a link
    ],
)
def test_one_that_does_not_work_is_passed_over(tmp_path: Path, root: Path, compilerless: None, text: str) -> None:
    bad = script(tmp_path / "bad/llama-server", text)
    script(tmp_path / "bad/neighbour", WORKING)
    good = script(tmp_path / "good/llama-server", WORKING)
    slot = Slot(root, "llama-server")
    recipe = LlamaServer(search_path=f"{bad.parent}:{good.parent}", ours=root)
    cli.install(recipe, slot, never)
    assert (slot.home / "bin/llama-server").readlink() == good


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server, "PROBE_TIMEOUT_S", 0.1)
    assert version_of(script(tmp_path / "llama-server", "#!/bin/sh\nexec sleep 1000\n")) is None


def test_only_executables_of_others_count(tmp_path: Path, root: Path) -> None:
    script(tmp_path / "plain/llama-server", WORKING).chmod(0o644)
    ours = script(root / ".llama-server/x/bin/llama-server", WORKING)
    (root / "llama-server").symlink_to(".llama-server/x")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/llama-server").symlink_to(ours)
    folders = (tmp_path / "plain", root / "llama-server/bin", tmp_path / "home")
    assert list(on_path(":".join(map(str, folders)), root)) == []


def test_without_a_compiler_it_says_how_to_get_one(tmp_path: Path, root: Path, compilerless: None) -> None:
    good = script(tmp_path / "good/llama-server", WORKING)
    slot = Slot(root, "llama-server")
    with pytest.raises(InstallError, match=re.escape(NO_COMPILER)):
        cli.install(LlamaServer(search_path="", ours=root), slot, never)
    with pytest.raises(InstallError, match=re.escape(NO_COMPILER)):
        cli.install(LlamaServer(search_path=str(good.parent), ours=root, compile_it=True), slot, never)
    assert "apt-get install g++" in NO_COMPILER


def test_a_link_is_good_until_its_target_goes_or_a_build_is_asked_for(tmp_path: Path, root: Path) -> None:
    good = script(tmp_path / "good/llama-server", WORKING)
    slot = Slot(root, "llama-server")
    recipe = LlamaServer(search_path=str(good.parent), ours=root)
    cli.install(recipe, slot, never)
    elsewhere = LlamaServer(search_path="", ours=root)
    assert cli.installed(elsewhere, slot), "another PATH does not throw away what works"
    assert cli.installed(LlamaServer(search_path=str(good.parent), ours=root, compile_it=True), slot) is None
    good.unlink()
    assert cli.installed(recipe, slot) is None


@pytest.mark.parametrize(("cores", "gib", "expected"), [(2, 24, 2), (16, 8, 5), (4, 1, 1)])
def test_compiling_does_not_ask_for_more_memory_than_there_is(cores: int, gib: int, expected: int) -> None:
    assert jobs(cores, gib << 30) == expected
