"""A backend that the kernel kills at the memory limit of the cgroup that runner and backends live in."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import anyio
import pytest
from slipway.runner.v1.model_pb2 import ModelState
from slipway_client import Runner
from slipway_client.specs import model_spec

from tests.e2e.stack import Service
from tests.e2e.test_commands import COMMANDS

pytestmark = [pytest.mark.anyio, pytest.mark.full]

LIMIT = 400 << 20
"""Of the runner, which takes a quarter of it, and the backend."""

PLACES = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
"""Of cgroup v1 and v2, and the file that holds a limit."""


@pytest.fixture
def limited() -> Iterator[Path]:
    """A cgroup with a limit, as a container has."""
    for place, limit in PLACES:
        made = place / f"slipway-test-{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            (made / limit).write_text(str(LIMIT))
            yield made
            made.rmdir()
            return
    pytest.fail("this needs a cgroup with a memory limit, which root may make")


async def test_a_kill_at_the_limit_is_told_for_what_it_is(tmp_path: Path, limited: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(1000))
    for shard in range(5):
        (folder / f"go-{shard}").touch()
    (tmp_path / "commands.toml").write_text(COMMANDS)
    options = (
        *(f"--{what}listen=127.0.0.1:0" for what in ("", "metrics-", "gateway-")),
        *("--registry=127.0.0.1:9", f"--model-roots={folder}", f"--commands={tmp_path / 'commands.toml'}"),
    )
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
    service = Service("runner", tmp_path / "runner", options, {**base, "HF_HOME": str(tmp_path / "hf")})
    await anyio.to_thread.run_sync(service.start)
    assert service.process is not None
    (limited / "cgroup.procs").write_text(str(service.process.pid))
    try:
        async with Runner.connect(service.address) as runner, aiohttp.ClientSession() as session:
            spec = model_spec(path=str(folder), backend="steps", task="embed", restart_policy="never")
            async for _ in runner.load(spec):
                pass
            with suppress(aiohttp.ClientError):
                gateway = f"http://{service.addresses['gateway']}/v1/embeddings"
                await session.post(gateway, json={"model": "m", "input": "everything"})
            model = (await runner.get_model("m")).model
            with anyio.fail_after(60):
                while model.state != ModelState.MODEL_STATE_ERROR:
                    await anyio.sleep(0.05)
                    model = (await runner.get_model("m")).model
        assert model.exit.signal == "SIGKILL"
        assert model.error.message.startswith("OUT_OF_MEMORY: The kernel killed it"), model.error.message
    finally:
        assert service.stop() == 0, service.log
