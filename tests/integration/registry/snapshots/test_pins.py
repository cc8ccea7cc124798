"""Who holds what, until when, and what holders are asked."""

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from huggingface_hub import snapshot_download
from slipway.registry.v1 import snapshot_service_pb2 as pb
from slipway.registry.v1.selection_pb2 import PatternSelection, Selection
from slipway_client.events import Changed, Removed, Synced
from slipway_registry.cache.journal import Event, Journal, Recorded
from slipway_registry.rpc.snapshots import SnapshotService
from slipway_service.handlers import Context

from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import EVERYTHING, GGUFS, PATIENCE, Q4, Q8, reason_of, served

pytestmark = pytest.mark.anyio


async def test_a_pin_says_where_the_files_are(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo, Q4)
        taken = await it.client.pin_snapshot("org/m", holder="runner/a", claim="uid", selection=Q4)
        assert {entry.path for entry in taken.manifest} == {"README.md", "config.json", "model-Q4_K_M.gguf"}
        for entry in taken.manifest:
            assert (it.hub / taken.snapshot_path / entry.path).stat().st_size == entry.size_bytes
        assert taken.cache_id == (await it.client.get_cache_usage()).cache_id
        assert taken.pin.expire_time.seconds - taken.pin.create_time.seconds == 86_400
        assert sorted(taken.pin.paths) == sorted(entry.path for entry in taken.manifest)
        assert (await it.snapshot(repo)).pin_count == 1
        usage = await it.client.get_cache_usage()
        assert usage.pinned_bytes == usage.snapshot_bytes > 0


async def test_the_same_claim_renews(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        first = (await it.client.pin_snapshot("org/m", holder="h", claim="c", selection=Q4, ttl=60)).pin
        again = (await it.client.pin_snapshot("org/m", holder="h", claim="c", selection=Q8, ttl=600)).pin
        other = (await it.client.pin_snapshot("org/m", holder="h", claim="d", keep=True)).pin
        assert (again.name, again.create_time) == (first.name, first.create_time)
        assert again.expire_time.seconds > first.expire_time.seconds
        assert "model-Q8_0.gguf" in again.paths
        assert "model-Q4_K_M.gguf" not in again.paths
        assert (other.name == first.name, other.HasField("expire_time"), len(other.paths)) == (False, False, 0)
        assert {pin.name for pin in await it.client.list_pins(holder="h")} == {again.name, other.name}
        assert await it.client.list_pins(holder="x") == []
        await it.client.unpin_snapshot(other.name)
        assert (await reason_of(it.client.unpin_snapshot(other.name))).reason == "PIN_NOT_FOUND"


async def test_pins_outlive_the_process(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        pin = (await it.client.pin_snapshot("org/m", holder="h", claim="c")).pin
    async with served(tmp_path, hub.endpoint) as it:
        assert await it.client.list_pins() == [pin]
        assert (await it.snapshot(repo)).pin_count == 1


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Q8, "SNAPSHOT_INCOMPLETE"),
        (EVERYTHING, "SNAPSHOT_INCOMPLETE"),
        (Selection(variant="Q2_K"), "VARIANT_NOT_FOUND"),
        (Selection(patterns=PatternSelection(include=["*.pdf"])), "SELECTION_EMPTY"),
    ],
)
async def test_what_is_not_there_cannot_be_pinned(
    hub: HubEmulator, tmp_path: Path, selection: Selection, reason: str
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        absent = await reason_of(it.client.pin_snapshot("org/m", holder="h"))
        assert absent.reason == "SNAPSHOT_NOT_FOUND"
        await it.pull(repo, Q4)
        assert (await reason_of(it.client.pin_snapshot("org/m", holder="h", selection=selection))).reason == reason
        assert await it.client.list_pins() == []


async def test_every_wrong_field_is_named(hub: HubEmulator, tmp_path: Path) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        wrong = await reason_of(it.client.pin_snapshot("no/such/repo", holder="", claim="x" * 300, ttl=1, keep=True))
        assert wrong.reason == "INVALID_FIELDS"
        assert all(field in str(wrong) for field in ("repo_id", "holder", "claim", "ttl"))
        for text in (" ", "a\nb", "a\0b", "\x1b[2J", "a\u2028b"):
            unseen = await reason_of(it.client.pin_snapshot("org/m", holder=text, claim=text))
            assert [field.field for field in unseen.fields] == ["holder", "claim"]
        long = await reason_of(it.client.pin_snapshot("org/m", holder="h", ttl=31 * 86_400))
        assert long.reason == "INVALID_FIELDS"


async def test_a_pin_ends_by_itself_and_its_holder_sees_it(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_pins(holder="h") as watch:
                assert isinstance(await anext(watch), Synced)  # it is open before there is a pin, which is soon over
                await it.client.pin_snapshot("org/m", holder="other")
                pin = (await it.client.pin_snapshot("org/m", holder="h", ttl=0.05)).pin
                while not isinstance(event := await anext(watch), Changed):
                    pass
                assert event.resource.name == pin.name
                while not isinstance(gone := await anext(watch), Removed):
                    assert not isinstance(gone, Changed)
                assert gone.name == pin.name
        assert [it.holder for it in await it.client.list_pins()] == ["other"]


async def test_a_pin_is_told_though_its_holder_left_while_it_was_stored(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    storing, left = threading.Event(), threading.Event()
    append, pin_snapshot = Journal.append, SnapshotService.PinSnapshot

    def slow(journal: Journal, events: Sequence[Event]) -> list[Recorded]:
        recorded = append(journal, events)
        if any(event.label == "leaver" for event in events):
            storing.set()
            left.wait(PATIENCE)
        return recorded

    async def notice_leaving() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    async def pinned(
        service: SnapshotService, request: pb.PinSnapshotRequest, context: Context
    ) -> pb.PinSnapshotResponse:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notice_leaving)
            response = await pin_snapshot(service, request, context)
            tasks.cancel_scope.cancel()
        return response

    monkeypatch.setattr(Journal, "append", slow)
    monkeypatch.setattr(SnapshotService, "PinSnapshot", pinned)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: it.client.pin_snapshot("org/m", holder="leaver"))
                await to_thread.run_sync(storing.wait)
                tasks.cancel_scope.cancel()
            await to_thread.run_sync(left.wait)
            await it.client.pin_snapshot("org/m", holder="stayer")
            async with it.client.watch_pins() as watch:
                for holder in ("leaver", "stayer"):
                    event = await anext(watch)
                    assert isinstance(event, Changed)
                    assert event.resource.holder == holder


async def test_pins_on_what_another_program_took_are_ended(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull(repo)
        await it.client.pin_snapshot("org/m", holder="h")
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_pins(holder="h") as watch:
                assert isinstance(await anext(watch), Changed)
                await to_thread.run_sync(shutil.rmtree, it.paths(repo).root)
                while not isinstance(await anext(watch), Removed):
                    pass
        assert await it.client.list_pins() == []
        assert await it.client.list_snapshots() == []


async def test_a_pin_that_a_full_disk_refuses_is_none(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add_repo("org/m", GGUFS)

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    async with served(tmp_path, hub.endpoint) as it:
        fetch = partial(snapshot_download, repo.id, revision=repo.head.id, cache_dir=it.hub, token=False)
        await to_thread.run_sync(partial(fetch, endpoint=hub.endpoint))
        with monkeypatch.context() as patch:
            patch.setattr("slipway_registry.cache.hold.replace_file", full)
            refused = await reason_of(it.client.pin_snapshot("org/m", repo.head.id, holder="h"))
        assert refused.reason == "DISK_FULL"
        assert [(found.type, found.subject) for found in refused.preconditions] == [("DISK", str(it.paths(repo).root))]
        assert await it.client.list_pins() == []
        await it.client.pin_snapshot("org/m", repo.head.id, holder="h")
