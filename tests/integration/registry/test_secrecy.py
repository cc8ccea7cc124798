"""Tokens go to the Hub and nowhere else: not into logs, state, cache, events, answers, or what `ps` shows."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from slipway.registry.v1.selection_pb2 import Selection
from slipway_client import Registry, SlipwayError

from tests.e2e.stack import Stack
from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status

pytestmark = pytest.mark.anyio

SERVICE, ROTATED, CALLER, NOBODY = "hf_ServiceOne", "hf_ServiceTwo", "hf_CallerAnn", "hf_NobodyKnowsMe"
EVERYTHING = Selection(everything=True)
PATIENCE = 100.0


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Outside of the cache, which others may read."""
    file = tmp_path / "secrets" / "token"
    file.parent.mkdir()
    file.write_text(SERVICE)
    return file


@pytest.fixture
async def stack(hub: HubEmulator, tmp_path: Path, token_file: Path) -> AsyncIterator[Stack]:
    """A registry alone, as a process that logs all it can."""
    (tmp_path / "services").mkdir()
    options = ("--log-level=debug", "--log-format=json")
    environment = {"HF_TOKEN_PATH": str(token_file)}
    made = Stack(tmp_path / "services", hub.endpoint, *options, environment=environment)
    await to_thread.run_sync(made.registry.start)
    yield made
    assert await to_thread.run_sync(made.registry.stop) == 0, made.registry.log


async def reason(call: object) -> str:
    with pytest.raises(SlipwayError) as caught:
        await call  # type: ignore[misc]
    assert not any(token in repr(caught.value) + str(caught.value) for token in (SERVICE, ROTATED, CALLER, NOBODY))
    return caught.value.reason


async def test_a_token_is_nowhere_but_at_the_hub(
    hub: HubEmulator, stack: Stack, token_file: Path, tmp_path: Path
) -> None:
    files: dict[str, Source] = {"m-Q8_0.gguf": Random(3 << 20), "config.json": "{}"}
    for name in ("org/services", "org/later", "org/anns"):
        hub.add_repo(name, files, private=True, xet=name == "org/anns")
    hub.add_repo("org/gated", files, gated="manual")
    hub.add_user("service", SERVICE, {"org/services"})
    hub.add_user("rotated", ROTATED, {"org/later"})
    hub.add_user("ann", CALLER, {"org/anns", "org/gated"})
    told: list[str] = []
    with anyio.fail_after(PATIENCE):
        async with Registry.connect(stack.registry.address) as client, anyio.create_task_group() as watching:

            async def listen() -> None:
                async with client.watch_downloads() as watch:
                    async for event in watch:
                        told.append(repr(event))

            watching.start_soon(listen)
            # The service's own, re-read when it changes.
            told += [repr(it) async for it in client.pull("org/services", selection=EVERYTHING)]
            assert await reason(client.get_repo("org/later")) == "REPO_NOT_FOUND"
            await to_thread.run_sync(token_file.write_text, ROTATED)
            told.append(repr(await client.get_repo("org/later")))
            assert await reason(client.get_repo("org/services", "v1")) == "REPO_NOT_FOUND"
            # A caller's, for its own calls only: what was answered to it is answered to nobody else.
            told.append(repr(await client.get_repo("org/anns", hf_token=CALLER)))
            assert await reason(client.get_repo("org/anns")) == "REPO_NOT_FOUND"
            assert await reason(client.create_download("org/gated")) == "REPO_GATED"
            for name in ("org/anns", "org/gated"):
                pulled = client.pull(name, selection=EVERYTHING, hf_token=CALLER)
                told += [repr(it) async for it in pulled]
            assert await reason(client.get_repo("org/gated", hf_token=NOBODY)) == "CREDENTIAL_INVALID"
            hub.faults.add(Status(500), "/api/")
            assert await reason(client.search("x", hf_token=CALLER)) == "HUB_ERROR"
            told += [repr(it) for it in await client.list_downloads()]
            watching.cancel_scope.cancel()
    assert stack.registry.process is not None
    shown = await to_thread.run_sync(
        lambda: subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    )
    assert "slipway-registry" in shown
    assert await to_thread.run_sync(stack.registry.stop) == 0  # nothing comes and goes while it is read
    written = [file for file in (tmp_path / "services").rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(file.name == "registry.sqlite3" for file in written)
    assert len(stack.registry.log.splitlines()) > 20
    for token in (SERVICE, ROTATED, CALLER, NOBODY):
        assert token not in shown
        assert not [event for event in told if token in event]
        assert [file for file in written if token.encode() in file.read_bytes()] == []
    assert hub.journal.leaks() == []
    seen = {exchange.headers.get("authorization") for exchange in hub.journal.requests(origin="hub")}
    assert {f"Bearer {token}" for token in (SERVICE, ROTATED, CALLER, NOBODY)} <= seen
