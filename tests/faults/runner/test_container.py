"""A runner that is the first process of a PID namespace, as in a container: what ends with it is loaded again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from slipway.runner.v1.model_pb2 import Model, ModelState
from slipway_client import Runner
from slipway_client.errors import SlipwayError
from slipway_client.specs import model_spec

from tests.e2e.stack import BIN, wait_for
from tests.e2e.test_commands import COMMANDS
from tests.faults.runner.host import is_loaded

pytestmark = [pytest.mark.anyio, pytest.mark.full]

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@contextmanager
def contained(root: Path) -> Iterator[str]:
    """A runner in a namespace of its own; its address. It is killed, with everything in it."""
    options = (
        *(f"--{what}listen=127.0.0.1:0" for what in ("", "metrics-", "gateway-")),
        *("--registry=127.0.0.1:9", f"--model-roots={root / 'm'}", f"--commands={root / 'commands.toml'}"),
    )
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
    address = root / "runner" / "address"
    address.unlink(missing_ok=True)
    command = [*CONTAINER, str(BIN / "slipway-runner"), "serve", "--state-dir", str(root / "runner"), *options]
    with (root / "log").open("ab") as log:
        process = subprocess.Popen(command, env={**base, "HF_HOME": str(root / "hf")}, stdout=log, stderr=log)
    try:
        wait_for(lambda: address.exists() or process.poll() is not None, "the runner to serve")
        assert process.poll() is None, (root / "log").read_text()
        yield address.read_text().strip()
    finally:
        process.kill()
        process.wait()


async def until_loaded(runner: Runner) -> Model:
    with anyio.fail_after(60):
        while True:
            try:
                model = (await runner.get_model("m")).model
            except SlipwayError:
                await anyio.sleep(0.05)
                continue
            assert model.state != ModelState.MODEL_STATE_ERROR, model.error
            if is_loaded(model):
                return model
            await anyio.sleep(0.05)


async def test_in_a_container_models_are_loaded_again(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or os.getuid() != 0:
        pytest.fail("this needs a PID namespace, which root makes with unshare (util-linux)")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(1000))
    for shard in range(5):
        (folder / f"go-{shard}").touch()
    (tmp_path / "commands.toml").write_text(COMMANDS)

    with contained(tmp_path) as address:
        async with Runner.connect(address) as runner:
            about = await runner.get_runner()
            assert not about.adoption
            assert "first process of its container" in about.adoption_why_not
            reasons = {one.name: one.why_not for one in about.backends if not one.usable}
            assert "pip install sglang" in reasons["sglang"]
            await runner.load_model(model_spec(path=str(folder), backend="steps", task="embed"))
            first = await until_loaded(runner)
    with contained(tmp_path) as address:
        async with Runner.connect(address) as runner:
            again = await until_loaded(runner)
    assert again.uid == first.uid
    assert again.restart_count == 1
    assert not again.adopted
