"""Hashing what is there, saying what is wrong, and fetching just that again."""

import hashlib
from pathlib import Path

import pytest
from slipway.registry.v1 import snapshot_pb2 as pb
from slipway.registry.v1.snapshot_service_pb2 import VerifySnapshotResponse
from slipway_client import SlipwayError

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import GGUFS, Served, served

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def verify(it: Served, name: str, *, variant: str = "", repair: bool = False) -> list[VerifySnapshotResponse]:
    return [answer async for answer in it.client.verify_snapshot(name, variant=variant, repair=repair)]


def kinds(answers: list[VerifySnapshotResponse]) -> list[tuple[str, str]]:
    return [
        (found.path, pb.FindingKind.Name(found.kind).removeprefix("FINDING_KIND_"))
        for answer in answers
        for found in answer.findings
    ]


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


async def test_what_is_right_is_called_verified(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        before = await it.snapshot(repo)
        answers = await verify(it, before.name)
        assert (kinds(answers), answers[-1].open_findings) == ([], 0)
        done = answers[-2].progress
        assert done.done_bytes == done.total_bytes == before.present_bytes
        after = await it.snapshot(repo)
        assert all(file.verify_time.ToNanoseconds() > 0 for file in after.files)
        assert after.files[0].verify_time.ToNanoseconds() > before.files[0].verify_time.ToNanoseconds()


async def test_what_is_wrong_is_said(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        name = (await it.snapshot(repo)).name
        root = it.hub / (await it.snapshot(repo)).path
        flip((root / "model-Q4_K_M.gguf").resolve(), 100)
        (root / "model-Q8_0.gguf").resolve().unlink()
        answers = await verify(it, name)
        assert sorted(kinds(answers)) == [("model-Q4_K_M.gguf", "DAMAGED"), ("model-Q8_0.gguf", "MISSING")]
        assert answers[-1].open_findings == 2
        files = {file.file.path: file for file in (await it.snapshot(repo)).files}
        damaged = files["model-Q4_K_M.gguf"]
        assert (damaged.damaged, damaged.HasField("verify_time")) == (True, False)
        assert not files["config.json"].damaged
        only = await verify(it, name, variant="Q8_0")
        assert kinds(only) == [("model-Q8_0.gguf", "MISSING")]
        with pytest.raises(SlipwayError) as caught:
            await verify(it, name, variant="Q2_K")
        assert caught.value.reason == "VARIANT_NOT_FOUND"


async def test_a_repair_fetches_the_damaged_block_only(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"big.bin": Random(16 * MIB), "gone.txt": b"gone", "fine.txt": b"fine"})
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        snapshot = await it.snapshot(repo)
        root = it.hub / snapshot.path
        flip((root / "big.bin").resolve(), 5 * MIB + 7)
        (root / "gone.txt").resolve().unlink()
        hub.journal.clear()
        answers = await verify(it, snapshot.name, repair=True)
        found = kinds(answers)
        assert found[-2:] == [("big.bin", "REPAIRED"), ("gone.txt", "REPAIRED")]
        assert answers[-1].open_findings == 0
        assert hashlib.sha256((root / "big.bin").read_bytes()).hexdigest() == repo.head.files["big.bin"].blob.sha256
        assert sum(exchange.sent for exchange in hub.journal.requests(origin="cdn")) == MIB
        after = await it.snapshot(repo)
        assert after.complete
        assert not any(file.damaged for file in after.files)
        assert kinds(await verify(it, snapshot.name)) == []
