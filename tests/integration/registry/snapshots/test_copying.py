"""Real files out of the cache and into it."""

import os
from pathlib import Path
from typing import Any

import pytest
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway_client import SlipwayError

from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import EVERYTHING, GGUFS, Q4, Served, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "exports"
    made.mkdir()
    return made


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def export(it: Served, name: str, directory: Path, selection: Any = EVERYTHING) -> Any:
    return [answer async for answer in it.client.export_snapshot(name, str(directory), selection=selection)][-1]


async def import_(it: Served, repo: str, directory: Path) -> Any:
    return [answer async for answer in it.client.import_snapshot(repo, str(directory))][-1]


async def reason(call: Any) -> str:
    with pytest.raises(SlipwayError) as caught:
        await call
    return caught.value.reason


async def test_an_export_is_real_files(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    repo = hub.add_repo("org/m", {**GGUFS, "sub/deep.txt": b"deep"})
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        last = await export(it, name, root / "new" / "m")
        assert (last.file_count, last.done_bytes) == (5, last.total_bytes)
        exported = contents(root / "new" / "m")
        assert exported == contents(it.hub / (await it.snapshot(repo)).path)
        assert not any(path.is_symlink() for path in (root / "new" / "m").rglob("*"))
        assert (await export(it, name, root / "new" / "m")).file_count == 5
        assert await it.client.list_pins() == []
        await export(it, name, root / "one", Q4)
        assert "model-Q8_0.gguf" not in contents(root / "one")


async def test_an_export_stays_where_it_may_be(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", root / "out")
    (root / "full").mkdir()
    (root / "full" / "diary.txt").write_text("mine")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo, Q4)
        name = (await it.snapshot(repo)).name
        for directory in (tmp_path / "elsewhere", root / ".." / "elsewhere", root / "out" / "m", root / "full"):
            assert await reason(export(it, name, directory, Q4)) == "PATH_NOT_ALLOWED"
        assert await reason(export(it, name, Path("relative"), Q4)) == "PATH_NOT_ALLOWED"
        assert await reason(export(it, name, root / "m")) == "SNAPSHOT_INCOMPLETE"
        assert contents(root / "full") == {"diary.txt": b"mine"}
        assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_an_import_takes_what_is_right(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    repo = hub.add_repo("org/m", {**GGUFS, "sub/deep.txt": b"deep"})
    for name, file in repo.head.files.items():
        target = root / "m" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.blob.path.read_bytes())
    (root / "m" / "config.json").write_bytes(b"[]")
    (root / "m" / "stranger.txt").write_bytes(b"who")
    (root / "m" / ".cache").mkdir()
    (root / "m" / ".cache" / "note").write_bytes(b"x")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        before = contents(root)
        last = await import_(it, "org/m", root / "m")
        found = {finding.path: finding.kind for finding in last.findings}
        assert found == {"config.json": pb.FINDING_KIND_DAMAGED, "stranger.txt": pb.FINDING_KIND_MISSING}
        snapshot = await it.snapshot(repo)
        assert (last.snapshot.name, last.snapshot.commit) == (snapshot.name, repo.head.id)
        assert {file.file.path for file in snapshot.files if not file.present} == {"config.json"}
        assert all(variant.verified for variant in snapshot.variants)
        assert contents(root) == before
        assert hub.journal.requests(origin="cdn") == []
        assert (await it.pull(repo)).progress.cached_bytes > 0
        assert (await it.snapshot(repo)).complete
        usage = await it.client.get_cache_usage()
        assert (usage.partial_bytes, usage.reserved_bytes) == (0, 0)


async def test_an_import_of_nothing_right_is_refused(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    hub.add_repo("org/m", GGUFS)
    (root / "config.json").write_bytes(b"[]")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        assert await reason(import_(it, "org/m", root)) == "HASH_MISMATCH"
        assert await it.client.list_snapshots() == []
        assert await reason(import_(it, "org/m", tmp_path)) == "PATH_NOT_ALLOWED"
