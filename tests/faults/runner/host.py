"""A host with a runner that can be killed: its models, its clients, and what /proc shows of them."""

import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from slipway.runner.v1.model_pb2 import Model, ModelState
from slipway_client import Runner
from slipway_client.errors import SlipwayError
from slipway_client.specs import model_spec
from slipway_runner.process import members, pidfd
from slipway_runner.process.proc import ProcessId

from tests.e2e.stack import Service
from tests.hub.models.demo import demo_models

PROCESSES = {"llama": 1, "tree": 3}
"""The models, and how many processes each has."""

TREE_SERVER = Path(__file__).with_name("tree_server.py")

COMMANDS = """
[tree]
program = "{python}"
arguments = ["-S", "-E", "{server}", "{{port}}", "{{name}}", "{{file}}"]
formats = ["gguf"]
stop_timeout = "2s"
[tree.paths]
"/v1/completions" = "/v1/completions"
[[tree.progress]]
pattern = 'read (?P<done>\\d+) of (?P<total>\\d+) parts'
"""


@dataclass
class RunnerHost:
    """One runner with models of two backends: `llama`, on llama-server, and `tree`, on a server of three processes."""

    root: Path
    service: Service = field(init=False)

    def __post_init__(self) -> None:
        models = self.root / "models"
        models.mkdir()
        (weights,) = demo_models().glob("nano-chat-GGUF/Q4_K_M/*.gguf")
        for name in ("llama", "tree"):
            shutil.copy(weights, models / f"{name}.gguf")
        commands = self.root / "commands.toml"
        commands.write_text(COMMANDS.format(python=sys.executable, server=TREE_SERVER))
        options = (
            *(f"--{what}listen=127.0.0.1:0" for what in ("", "metrics-", "gateway-")),
            # Nobody is there: a runner needs no registry for models of its own disk.
            "--registry=127.0.0.1:9",
            f"--model-roots={models}",
            f"--commands={commands}",
            "--restart-budget=1000",
            "--restart-delay=50ms",
            "--restart-delay-limit=100ms",
            "--drain-timeout=1s",
        )
        base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
        self.service = Service("runner", self.root / "runner", options, {**base, "HF_HOME": str(self.root / "hf")})

    @property
    def gateway(self) -> str:
        """The base of its URLs."""
        return f"http://{self.service.addresses['gateway']}"

    @property
    def instance(self) -> str:
        """What every backend's environment is tagged with."""
        return (self.service.state / "instance").read_text().strip()

    def families(self) -> dict[str, list[ProcessId]]:
        """The backends' processes that run, by the tag of each start."""
        return members.tagged(self.instance) if (self.service.state / "instance").exists() else {}

    def gateways(self) -> list[ProcessId]:
        """The gateway's processes that run."""
        return members.tagged(f"gateway of {self.service.state.resolve()}").get("gateway", [])

    def end(self) -> list[ProcessId]:
        """Kill what is left of it, so that nothing outlives even a test that failed; what that was."""
        left = [*(one for family in self.families().values() for one in family), *self.gateways()]
        for one in left:
            pidfd.send(one, signal.SIGKILL)
        return left

    async def start(self) -> None:
        """Start the runner; returns when it serves."""
        await anyio.to_thread.run_sync(self.service.start)

    async def load_all(self) -> None:
        """Load both models and wait for them."""
        async with Runner.connect(self.service.address) as runner:
            for name, backend in (("llama", "llama-server"), ("tree", "tree")):
                spec = model_spec(path=str(self.root / "models" / f"{name}.gguf"), backend=backend, task="generate")
                await runner.load_model(spec, model_id=name)
        await self.until_loaded()

    async def models(self) -> dict[str, Model]:
        """All models by id; waits for an answer."""
        while True:
            try:
                async with Runner.connect(self.service.address) as runner:
                    return {one.name.removeprefix("models/"): one for one in await runner.list_models()}
            except (SlipwayError, FileNotFoundError):
                await anyio.sleep(0.02)

    async def until_loaded(self, seconds: float = 60.0) -> dict[str, Model]:
        """Wait until all are LOADED and none is in ERROR."""
        models: dict[str, Model] = {}
        with anyio.move_on_after(seconds):
            while True:
                models = await self.models()
                assert not any(one.state == ModelState.MODEL_STATE_ERROR for one in models.values()), models
                if len(models) == len(PROCESSES) and all(is_loaded(one) for one in models.values()):
                    return models
                await anyio.sleep(0.05)
        raise AssertionError(f"not LOADED after {seconds:.0f} s: {models}\n{self.service.log[-3000:]}")

    def assert_no_orphan(self, models: dict[str, Model]) -> None:
        """Every process in /proc that this runner ever started belongs to what it shows now."""
        found = {tag: {one.pid for one in processes} for tag, processes in self.families().items()}
        assert len(found) == len(models), found
        for name, model in models.items():
            (mine,) = (pids for tag, pids in found.items() if tag.startswith(f"{model.uid}."))
            assert model.pid in mine
            assert len(mine) == PROCESSES[name], found
        assert len(self.gateways()) == 1
        known = {pid for pids in found.values() for pid in pids} | {one.pid for one in self.gateways()}
        assert self.service.process is not None
        assert self.about() - known == {self.service.process.pid}

    def about(self) -> set[int]:
        """Whatever names this host's directory in its arguments, tagged or not: all that was ever started here."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self.root).encode() in path.read_bytes():
                    found.add(int(path.parent.name))
        return found


def is_loaded(model: Model) -> bool:
    return model.state == ModelState.MODEL_STATE_LOADED
