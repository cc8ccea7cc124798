"""Watchers that come back to a registry that was away."""

import json
import shutil
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio import to_thread
from slipway_client.events import Changed, Removed, Reset

from tests.hub.emulator import HubEmulator
from tests.integration.registry.snapshots.served import GGUFS, PATIENCE, Q4, served

pytestmark = pytest.mark.anyio


async def test_who_watched_before_a_restart_misses_nothing(hub: HubEmulator, tmp_path: Path) -> None:
    for name in ("org/stays", "org/goes", "org/later"):
        hub.add_repo(name, GGUFS)
    async with served(tmp_path, hub.endpoint) as it:
        await it.pull("org/stays", Q4)
        await it.pull("org/goes", Q4)
        goes = await it.snapshot("org/goes")
        first = await it.client.pin_snapshot("org/stays", holder="h")
        pins, snapshots = first.cursor, (await it.client.get_snapshot(goes.name)).cursor
        await it.pull("org/later", Q4)
        later = await it.snapshot("org/later")
    await to_thread.run_sync(shutil.rmtree, it.paths("org/goes").root)
    async with served(tmp_path, hub.endpoint) as it:
        with anyio.fail_after(PATIENCE):
            async with it.client.watch_snapshots(after=snapshots) as watch:
                found = []
                while not isinstance(event := await anext(watch), Removed):
                    found.append(event)
                assert not any(isinstance(it, Reset) for it in found)
                told = [it.resource.name for it in found if isinstance(it, Changed)]
                assert (event.name, event.uid) == (goes.name, goes.uid)
                assert later.name in told
                assert goes.name not in told
            await it.client.unpin_snapshot(first.pin.name)
            async with it.client.watch_pins(holder="h", after=pins) as watching:
                while not isinstance(gone := await anext(watching), Removed):
                    assert not isinstance(gone, Reset)
                assert gone == Removed(first.pin.name, first.pin.name.removeprefix("pins/"))


async def test_watches_of_every_topic_are_counted(hub: HubEmulator, tmp_path: Path) -> None:
    async with served(tmp_path, hub.endpoint) as it, it.client.watch_pins(holder="h") as watch:
        await anext(watch)
        address = json.loads((tmp_path / "state" / "addresses.json").read_text())["metrics"]
        scraped = await to_thread.run_sync(lambda: httpx2.get(f"http://{address}/metrics").text)
        open_watches = {
            line.split("{")[1].split('"')[1]: float(line.split()[-1])
            for line in scraped.splitlines()
            if line.startswith("slipway_watchers{")
        }
        assert open_watches == {"downloads": 0.0, "snapshots": 0.0, "pins": 1.0}
