"""Real files out of the cache and into it."""

import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import from_thread
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway_client import SlipwayError
from slipway_registry.cache.take_in import Intake
from slipway_registry.transfer.halt import Halt

from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import EVERYTHING, GGUFS, KIB, PATIENCE, Q4, Served, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "exports"
    made.mkdir()
    return made


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def odd_name(directory: Path) -> Path:
    """A file whose name is no text."""
    return directory / os.fsdecode(b"\xff")


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


async def test_a_directory_that_no_path_can_name_is_the_callers_mistake(
    hub: HubEmulator, tmp_path: Path, root: Path
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        assert await reason(export(it, name, Path(f"{root}/a\0b"))) == "INVALID_FIELDS"
        assert await reason(import_(it, "org/m", Path(f"{root}/a\0b"))) == "INVALID_FIELDS"
        assert await reason(import_(it, "org/m", root / "missing")) == "PATH_NOT_ALLOWED"


async def test_odd_names_and_damage_are_told(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    odd = root / "odd"
    odd.mkdir()
    odd_name(odd).write_bytes(b"")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        assert await reason(export(it, snapshot.name, odd)) == "PATH_NOT_ALLOWED"
        assert (await export(it, snapshot.name, root / "m")).file_count == 4
        odd_name(root / "m").write_bytes(b"")
        last = await import_(it, "org/m", root / "m")
        assert [(found.path, found.kind) for found in last.findings] == [(r"\xff", pb.FINDING_KIND_MISSING)]
        (it.hub / snapshot.path / "model-Q4_K_M.gguf").write_bytes(b"x" * 64 * KIB)
        assert await reason(export(it, snapshot.name, root / "new")) == "HASH_MISMATCH"
        assert "model-Q4_K_M.gguf" not in contents(root / "new")
        assert [found async for found in it.client.verify_snapshot(snapshot.name)][-1].open_findings == 1
        assert await reason(export(it, snapshot.name, root / "new")) == "HASH_MISMATCH"  # though it is known by now
        assert await it.client.list_pins() == []


async def test_a_fifo_keeps_nobody(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    """A FIFO that is opened as a file is waits for ever."""
    hub.add_repo("org/m", GGUFS)
    os.mkfifo(root / "config.json")
    (root / "README.md").write_bytes(b"read me")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        last = await import_(it, "org/m", root)
        assert [(found.path, found.kind) for found in last.findings] == [("config.json", pb.FINDING_KIND_UNREADABLE)]


async def test_a_start_clears_what_a_killed_registry_left(hub: HubEmulator, tmp_path: Path, root: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo)
        await it.client.pin_snapshot("org/m", "main", holder="registry", claim=f"export to {root} 1")
        await it.client.pin_snapshot("org/m", "main", holder="someone", claim="export to elsewhere")
        (it.paths(repo).ingest / "import-0123456789abcdef-0").write_bytes(b"half")
        (it.paths(repo).ingest / "link.01234567").write_bytes(b"half")
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        assert [pin.holder for pin in await it.client.list_pins()] == ["someone"]
        assert (await it.client.get_cache_usage()).partial_bytes == 0


async def test_an_export_does_not_write_into_the_cache(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint, export_roots=[str(tmp_path)]) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        evil = it.hub / "models--evil--x" / "snapshots" / ("a" * 40)
        assert await reason(export(it, name, evil)) == "PATH_NOT_ALLOWED"
        assert await reason(export(it, name, it.hub)) == "PATH_NOT_ALLOWED"
        await export(it, name, tmp_path / "beside")


async def test_what_an_import_brings_is_not_deleted_below_it(
    hub: HubEmulator, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    for path, file in repo.head.files.items():
        (root / path).write_bytes(file.blob.path.read_bytes())
    begun, go_on, run = anyio.Event(), threading.Event(), Intake.run

    def waiting(work: Intake, halt: Halt) -> None:
        from_thread.run_sync(begun.set)
        assert go_on.wait(PATIENCE)
        run(work, halt)

    monkeypatch.setattr(Intake, "run", waiting)
    async with served(tmp_path, hub.endpoint, export_roots=[str(root)]) as it:
        await it.pull(repo, Q4)
        name = (await it.snapshot(repo)).name
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(import_, it, "org/m", root)
            await begun.wait()
            assert await reason(it.client.delete_snapshot(name)) == "SNAPSHOT_BUSY"
            assert list((await it.client.prune_cache(unused_for=0.0)).items) == []
            go_on.set()
        assert (await it.snapshot(repo)).complete
        await it.client.delete_snapshot(name)
