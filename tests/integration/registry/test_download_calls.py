"""DownloadService as callers see it: what its answers say, and what a watch that goes on from them is sent."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from slipway.common.v1.watch_pb2 import Cursor
from slipway.registry.v1 import download_pb2
from slipway.registry.v1.download_service_pb2 import ListDownloadsRequest, ListDownloadsResponse
from slipway.registry.v1.download_service_pb2_grpc import DownloadServiceStub
from slipway_client import Registry
from slipway_client.events import Changed

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Delay
from tests.integration.registry.snapshots.served import EVERYTHING, PATIENCE, reason_of, served

pytestmark = pytest.mark.anyio

SMALL = {"config.json": b"{}", "model.gguf": b"x" * 1000}


async def page(client: Registry, **fields: object) -> ListDownloadsResponse:
    """A page of the list, as the service gives it."""
    request = ListDownloadsRequest(**fields)  # type: ignore[arg-type]
    return await DownloadServiceStub(client.connection.channel).ListDownloads(request)


async def test_every_cursor_is_where_what_it_came_with_was(hub: HubEmulator, tmp_path: Path) -> None:
    """However many callers steer a download at once: the last transition up to the cursor is the one that is shown."""
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(Delay(None), "resolve")
    answers: list[tuple[int, str]] = []
    transitions: list[str] = []
    async with served(tmp_path, hub.endpoint) as it, Registry.connect(it.address) as other:
        name = (await it.client.create_download(repo.id, selection=EVERYTHING)).download.name

        async def asking(ask: Callable[[], Awaitable[Any]]) -> None:
            for _ in range(30):
                answer = await ask()
                (shown,) = answer.downloads if isinstance(answer, ListDownloadsResponse) else [answer.download]
                answers.append((answer.cursor.revision, shown.etag))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asking, partial(it.client.pause_download, name))
                tasks.start_soon(asking, partial(other.resume_download, name))
                tasks.start_soon(asking, partial(other.get_download, name))
                tasks.start_soon(asking, partial(page, other))
                tasks.start_soon(asking, partial(it.client.create_download, repo.id, selection=EVERYTHING))
        answer = await it.client.cancel_download(name)
        answers.append((answer.cursor.revision, answer.download.etag))
        start = Cursor(epoch=answer.cursor.epoch)
        with anyio.fail_after(PATIENCE):
            async for event in it.client.watch_downloads([name], after=start, until_done=True):
                transitions += [event.resource.etag] if isinstance(event, Changed) else []
    assert [answer for answer in answers if transitions[answer[0] - 1] != answer[1]] == []


async def test_the_last_page_of_a_list_says_so(hub: HubEmulator, tmp_path: Path) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        for name in ("org/a", "org/b", "org/c"):
            await it.pull(hub.add_repo(name, SMALL))
        whole = await page(it.client, page_size=3)
        assert [one.repo_id for one in whole.downloads] == ["org/c", "org/b", "org/a"]
        assert whole.next_page_token == ""
        first = await page(it.client, page_size=2)
        last = await page(it.client, page_size=2, page_token=first.next_page_token)
        assert [one.repo_id for one in [*first.downloads, *last.downloads]] == ["org/c", "org/b", "org/a"]
        assert last.next_page_token == ""


async def test_the_last_page_of_those_in_a_state_says_so(hub: HubEmulator, tmp_path: Path) -> None:
    hub.faults.add(Delay(None), "org/live/resolve")
    live = hub.add_repo("org/live", {"other": b"other"})  # the same blob would be waited for by the others
    async with served(tmp_path, hub.endpoint) as it:
        await it.client.create_download(live.id, selection=EVERYTHING)
        for name in ("org/a", "org/b"):
            await it.pull(hub.add_repo(name, SMALL))
        done = [download_pb2.DOWNLOAD_STATE_SUCCEEDED]
        first = await page(it.client, page_size=1, states=done)
        assert [one.repo_id for one in first.downloads] == ["org/b"]
        last = await page(it.client, page_size=1, states=done, page_token=first.next_page_token)
        assert ([one.repo_id for one in last.downloads], last.next_page_token) == (["org/a"], "")


@pytest.mark.parametrize("state", [download_pb2.DOWNLOAD_STATE_UNSPECIFIED, 99])
async def test_a_state_that_there_is_not_is_refused(hub: HubEmulator, tmp_path: Path, state: int) -> None:
    async with served(tmp_path, hub.endpoint) as it:
        error = await reason_of(page(it.client, states=[download_pb2.DOWNLOAD_STATE_RUNNING, state]))
        assert (error.reason, [field.field for field in error.fields]) == ("INVALID_FIELDS", ["states[1]"])


async def test_what_has_ended_says_when_it_is_forgotten(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", SMALL)
    async with served(tmp_path, hub.endpoint, retention="2h") as it:
        done = await it.pull(repo)
        told = [done, (await it.client.get_download(done.name)).download, *(await it.client.list_downloads())]
        assert [one.expire_time.ToSeconds() - one.end_time.ToSeconds() for one in told] == [7200] * 3
        hub.faults.add(Delay(None), "resolve")
        other = hub.add_repo("org/live", {"other": b"other"})
        created = (await it.client.create_download(other.id, selection=EVERYTHING)).download
        assert not created.HasField("expire_time")


async def test_what_would_be_made_has_no_name_and_what_would_be_joined_has_its_own(
    hub: HubEmulator, tmp_path: Path
) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.faults.add(Delay(None), "resolve")
    async with served(tmp_path, hub.endpoint) as it:
        ask = it.client.create_download
        would_be = (await ask(repo.id, selection=EVERYTHING, validate_only=True)).download
        assert (would_be.name, would_be.uid, would_be.etag) == ("", "", "")
        assert would_be.state == download_pb2.DOWNLOAD_STATE_QUEUED
        created = (await ask(repo.id, selection=EVERYTHING)).download
        joined = (await ask(repo.id, selection=EVERYTHING, validate_only=True)).download
        assert (joined.name, joined.uid) == (created.name, created.uid)
        assert joined.etag


@pytest.mark.parametrize("blocks", [1, 1 << 40])
async def test_a_validation_says_what_the_disk_lacks_as_the_download_does(
    hub: HubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    repo = hub.add_repo("org/m", {"model.gguf": Random(1 << 20)})
    tight = SimpleNamespace(f_bavail=1, f_blocks=blocks, f_frsize=4096)
    async with served(tmp_path, hub.endpoint) as it:
        monkeypatch.setattr(os, "statvfs", lambda _: tight)
        would_be = (await it.client.create_download(repo.id, selection=EVERYTHING, validate_only=True)).download
        assert await it.client.list_downloads() == []
        created = await it.client.create_download(repo.id, selection=EVERYTHING)
        with anyio.fail_after(PATIENCE):
            async for made in it.client.follow_download(created.download, created.cursor):
                if made.HasField("error"):
                    break
        assert (would_be.state, would_be.queue_reason) == (made.state, made.queue_reason)
        assert would_be.error == made.error
        monkeypatch.undo()
