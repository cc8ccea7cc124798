"""A cache that several programs, users and hosts share; what docs/shared-cache.md says of it."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from slipway_client import Registry
from slipway_registry import app

from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.files import FileSpec
from tests.hub.repos import Repo
from tests.integration.hub.clients import Native
from tests.integration.registry import native_reads
from tests.integration.registry.snapshots.served import EVERYTHING, served

pytestmark = pytest.mark.anyio

FILES: Mapping[str, Source | FileSpec] = {
    "config.json": b"{}",
    "sub/deep.txt": b"deep",
    "model.safetensors": Random(1 << 20),
}
NOBODY = 65534
GROUP = 54321
"""A group that no account of the machine has."""


@pytest.fixture
def repo(hub: HubEmulator) -> Repo:
    return hub.add_repo("org/m", FILES)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def other_modes(root: Path, directory: int, file: int) -> dict[str, str]:
    """What below a cache has other modes than these, in octal."""
    found = {path: path.lstat() for path in [root, *root.rglob("*")] if not path.is_symlink()}
    return {
        str(path.relative_to(root)): oct(stat.S_IMODE(it.st_mode))
        for path, it in found.items()
        if stat.S_IMODE(it.st_mode) != (directory if stat.S_ISDIR(it.st_mode) else file)
    }


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def fill(hub: HubEmulator, directory: Path, **options: object) -> Path:
    """Have a registry download the repository; the hub cache."""
    async with served(directory, hub.endpoint, **options) as it:
        await it.pull("org/m", EVERYTHING)
        return it.hub


async def test_a_groups_cache_has_its_modes_whatever_the_umask(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    with umask(0o077):
        cache = await fill(hub, tmp_path, group_shared=True)
    assert other_modes(cache, 0o2775, 0o664) == {}


async def test_without_a_word_modes_follow_the_umask_of_the_start(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    with umask(0o027):
        async with served(tmp_path, hub.endpoint) as it:
            os.umask(0o077)  # by something else in the process; the block sets it back
            await it.pull("org/m", EVERYTHING)
    assert other_modes(it.hub, 0o750, 0o640) == {}


async def test_directories_that_exist_keep_their_modes(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    cache = tmp_path / "home" / "hub"
    cache.mkdir(parents=True)
    cache.chmod(0o750)
    await fill(hub, tmp_path, group_shared=True)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o750
    assert stat.S_IMODE((cache / "models--org--m").stat().st_mode) == 0o2775


async def test_a_cache_behind_a_link_is_the_same_cache(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull("org/m", EVERYTHING)
        assert (await it.snapshot("org/m")).complete
        assert [item.reason for item in (await it.client.prune_cache(quota_bytes=1, validate_only=True)).items]
    for home in (tmp_path / "home", tmp_path / "disk"):
        native = Native(hub.endpoint, home)
        assert native.call(native_reads.offline, "org/m", "main", None, HF_HUB_OFFLINE="1") == sorted(FILES)


async def test_it_may_be_mounted_anywhere(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    cache = await fill(hub, tmp_path)
    links = [path for path in cache.rglob("*") if path.is_symlink()]
    assert links
    assert not any(path.readlink().is_absolute() for path in links)
    (tmp_path / "elsewhere").mkdir()
    cache.rename(tmp_path / "elsewhere" / "hub")
    native = Native(hub.endpoint, tmp_path / "elsewhere")
    assert native.call(native_reads.offline, "org/m", "main", None, HF_HUB_OFFLINE="1") == sorted(FILES)


async def test_a_copy_is_a_cache(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    """As `COPY --from` or a volume's first use make one: other inodes, times to the second."""
    cache = await fill(hub, tmp_path)
    layer, copy = tmp_path / "layer.tar", tmp_path / "copy" / "home"
    copy.mkdir(parents=True)
    await anyio.run_process(["tar", "--format=gnu", "-C", cache.parent, "-cf", layer, "hub"])
    await anyio.run_process(["tar", "-C", copy, "-xf", layer])
    hub.journal.clear()
    async with served(tmp_path / "copy", hub.endpoint) as it:
        assert (await it.snapshot("org/m")).complete
        await it.pull("org/m", EVERYTHING)
    assert hub.journal.requests(origin="cdn") == []
    assert not [exchange for exchange in hub.journal.requests() if "/resolve/" in exchange.path]


@pytest.mark.parametrize("remote", [True, False])
async def test_a_remote_cache_is_patient_with_readers(
    hub: HubEmulator, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    """Another host's open file is gone with its name, so what is deleted keeps one for a while."""
    monkeypatch.setattr(app, "is_remote", lambda _: remote)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull("org/m", EVERYTHING)
        held = files_below(it.hub / "models--org--m" / "blobs")
        inodes = {path.stat().st_ino for path in held}
        await it.client.delete_snapshot((await it.snapshot("org/m")).name)
        left = {path.stat().st_ino for path in files_below(it.hub)}
    assert (inodes <= left) is remote


async def test_the_cache_holds_no_token(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_repo("org/gated", FILES, gated="manual")
    hub.add_user("ann", "hf_annstoken", ["org/gated"])
    async with served(tmp_path, hub.endpoint) as it:
        [_ async for _ in it.client.pull("org/gated", selection=EVERYTHING, hf_token="hf_annstoken")]
    files = files_below(tmp_path)
    assert len(files) > len(FILES)
    assert not [path for path in files if b"hf_annstoken" in path.read_bytes()]


async def test_who_reads_the_cache_reads_what_any_token_fetched(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_repo("org/gated", FILES, gated="manual")
    hub.add_user("ann", "hf_annstoken", ["org/gated"])
    async with served(tmp_path, hub.endpoint) as it:
        [_ async for _ in it.client.pull("org/gated", selection=EVERYTHING, hf_token="hf_annstoken")]
        async with Registry.connect(it.address) as other:
            assert (await other.get_snapshot(repo_id="org/gated", revision="main")).snapshot.complete
    native = Native(hub.endpoint, tmp_path / "home")
    assert native.call(native_reads.offline, "org/gated", "main", None, HF_HUB_OFFLINE="1") == sorted(FILES)


def test_a_login_with_a_token_path_of_its_own_leaves_the_cache_open(hub: HubEmulator, tmp_path: Path) -> None:
    """`hf auth login` makes the directory of the token private, which is HF_HOME if nothing else is said."""
    hub.add_user("ann", "hf_annstoken")
    home, private = tmp_path / "home", tmp_path / "ann"
    for directory in (home, private):
        directory.mkdir()
        directory.chmod(0o2775)
    native = Native(hub.endpoint, home)
    extra = {"HF_TOKEN_PATH": str(private / "token"), "HF_STORED_TOKENS_PATH": str(private / "stored_tokens")}
    done = native.hf("auth", "login", "--token", "hf_annstoken", **extra)
    assert done.returncode == 0, done.stderr
    assert (private / "token").read_text().strip() == "hf_annstoken"
    assert stat.S_IMODE(home.stat().st_mode) == 0o2775
    assert native.hf("auth", "login", "--token", "hf_annstoken").returncode == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700, "if this is so no longer, the page may say so"


_AS = """
import os, sys, tempfile
from huggingface_hub import snapshot_download
uid, gid, revision = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with tempfile.TemporaryDirectory() as there:  # so that every module is there that the other user could not read
    if not os.environ.get("HF_HUB_OFFLINE"):
        snapshot_download("org/m", cache_dir=there)
os.umask(0o002)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
try:
    print(snapshot_download("org/m", revision=revision))
except Exception as error:
    sys.exit(type(error).__name__)
"""


def download_as(uid: int, gid: int, environment: Mapping[str, str], revision: str = "main") -> str:
    """What a native download by another user gives: the snapshot, or why there is none."""
    command = [sys.executable, "-c", _AS, str(uid), str(gid), revision]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    return (done.stdout or done.stderr.splitlines()[-1]).strip()


@pytest.mark.full
async def test_the_group_is_handed_on(hub: HubEmulator, repo: Repo, tmp_path: Path) -> None:
    """Needs root."""
    cache = tmp_path / "home" / "hub"
    cache.mkdir(parents=True)
    os.chown(cache, -1, GROUP)
    cache.chmod(0o2775)
    await fill(hub, tmp_path, group_shared=True)
    assert {path.lstat().st_gid for path in cache.rglob("*")} == {GROUP}


@pytest.mark.full
async def test_the_group_may_write_and_others_read(hub: HubEmulator, repo: Repo, open_path: Path) -> None:
    """A member downloads with `hf` into the registry's cache; somebody else reads it all. Needs root."""
    cache = open_path / "home" / "hub"
    cache.mkdir(parents=True)
    cache.parent.chmod(0o755)
    os.chown(cache, -1, GROUP)
    cache.chmod(0o2775)
    with umask(0o077):
        await fill(hub, open_path, group_shared=True)
    before = repo.head.id
    after = repo.commit({"more.txt": b"more"})
    environment = Native(hub.endpoint, open_path / "home").environment(HF_HUB_DISABLE_XET="1")
    snapshots = cache / "models--org--m" / "snapshots"
    assert download_as(NOBODY, GROUP, environment) == str(snapshots / after)
    last = repo.commit({"last.txt": b"last"})
    assert download_as(NOBODY, NOBODY, environment) == "PermissionError", "one who is not of the group cannot write"
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    for commit in (before, after):
        assert download_as(NOBODY, NOBODY, offline, commit) == str(snapshots / commit)
    async with served(open_path, hub.endpoint, group_shared=True) as it:
        found = await it.listed(lambda snapshots: len(snapshots) >= 2)
        assert {before, after} <= {snapshot.commit for snapshot in found}
        assert (await it.pull("org/m", EVERYTHING)).commit == last


@pytest.mark.full
async def test_a_private_cache_is_closed_to_others(hub: HubEmulator, repo: Repo, open_path: Path) -> None:
    """Needs root."""
    with umask(0o077):
        await fill(hub, open_path)
    environment = Native(hub.endpoint, open_path / "home").environment(HF_HUB_OFFLINE="1")
    assert not download_as(NOBODY, NOBODY, environment).startswith("/")
