"""How soon a watcher sees what happens to backends, and what looking after models costs.

``python -m tests.bench.runner [--rounds 20] [--seconds 30]``. A real runner, watched over gRPC, with llama-server and,
for the costs, a small server of three processes in its place. LOADED is compared with a prober that knows nothing of
the runner: it asks the backend's own port a real question every 5 ms.
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from slipway.runner.v1.model_pb2 import Model, ModelState
from slipway_client import Runner
from slipway_client.events import Changed
from slipway_client.specs import model_spec
from slipway_runner.process import members, proc

from tests.bench.report import Report, milliseconds, share
from tests.e2e.stack import Service
from tests.faults.runner.host import COMMANDS, TREE_SERVER
from tests.hub.models.demo import demo_models

PROBE_SECONDS = 0.005
FLAGS = {"llama-server": {"threads": "1"}}
"""Its threads wait for each other in a busy loop, and on a busy machine for longer than all that is measured here."""

LOADED_MODELS = 20
SETTLE_SECONDS = 5.0
"""After the last load: members are looked for, the last of what loads leave behind is done."""

WANTED_LOADED, WANTED_EXIT = 0.030, 0.050
WANTED_CORE, WANTED_BYTES = 0.01, 120 << 20


@dataclass(frozen=True)
class Bench:
    """A runner at work, and its client."""

    service: Service
    client: Runner
    models: Path

    @property
    def instance(self) -> str:
        return (self.service.state / "instance").read_text().strip()

    async def load(self, name: str, backend: str) -> None:
        path = self.models / f"{name}.gguf"
        if not path.exists():
            (weights,) = demo_models().glob("nano-chat-GGUF/Q4_K_M/*.gguf")
            shutil.copy(weights, path)
        spec = model_spec(path=str(path), backend=backend, task="generate", flags=FLAGS.get(backend, {}))
        await self.client.load_model(spec, model_id=name, activation="never")

    async def until(self, name: str, good: Callable[[Model], bool]) -> tuple[Model, float]:
        """The first event of a model that is as wanted, and when (monotonic) it came."""
        async with self.client.watch_models([name]) as watch:
            async for event in watch:
                if isinstance(event, Changed) and good(event.resource):
                    return event.resource, time.monotonic()
        raise SystemExit(f"the watch of {name} has ended")

    async def unload(self, name: str) -> None:
        async for _ in self.client.unload(name):
            pass


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    models = folder / "models"
    models.mkdir()
    commands = folder / "commands.toml"
    commands.write_text(COMMANDS.format(python=sys.executable, server=TREE_SERVER))
    options = (
        *(f"--{what}listen=127.0.0.1:0" for what in ("", "metrics-", "gateway-")),
        "--registry=127.0.0.1:9",
        f"--model-roots={models}",
        f"--commands={commands}",
        "--loads-at-once=4",
    )
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
    service = Service("runner", folder / "runner", options, {**base, "HF_HOME": str(folder / "hf")})
    await asyncio.to_thread(service.start)
    try:
        async with Runner.connect(service.address) as client:
            yield Bench(service, client, models)
    finally:
        await asyncio.to_thread(service.stop)


async def first_answer(on: Bench) -> float:
    """When the backend that starts next answers a real question, asked every 5 ms."""
    port, key = await _starting(on)
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "m", "prompt": "Hi", "max_tokens": 1}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(force_close=True)) as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body) as answer:
                    if answer.status == 200:
                        return time.monotonic()
            await asyncio.sleep(PROBE_SECONDS)


async def _starting(on: Bench) -> tuple[int, str]:
    """Port and key of the backend, as its command line and environment have them."""
    while True:
        for family in members.tagged(on.instance).values():
            with suppress(OSError, ValueError, KeyError):
                pid = str(family[0].pid)
                argv = (proc.PROC / pid / "cmdline").read_text().split("\0")
                return int(argv[argv.index("--port") + 1]), proc.environ(family[0].pid)["LLAMA_API_KEY"]
        await asyncio.sleep(PROBE_SECONDS)


async def see_loads_and_exits(on: Bench, rounds: int) -> tuple[list[float], list[float]]:
    """How late a watcher sees LOADED, and the end of a backend."""
    loaded, ended = [], []
    for number in range(rounds):
        name = f"m{number % 2}"
        probed = asyncio.create_task(first_answer(on))
        watched = asyncio.create_task(on.until(name, lambda one: one.state == ModelState.MODEL_STATE_LOADED))
        await on.load(name, "llama-server")
        model, seen = await watched
        loaded.append(seen - await probed)
        away = asyncio.create_task(on.until(name, lambda one: one.state == ModelState.MODEL_STATE_RESTARTING))
        await asyncio.sleep(0.1)  # the watch is at work
        began = time.monotonic()
        os.kill(model.pid, signal.SIGKILL)
        ended.append((await away)[1] - began)
        await on.unload(name)
    return loaded, ended


async def look_after(on: Bench, seconds: float) -> tuple[float, int, float, int]:
    """Share of a core and resident bytes, of the runner and of its gateway, with models that nobody asks anything."""
    for number in range(LOADED_MODELS):
        await on.load(f"t{number}", "tree")
    for number in range(LOADED_MODELS):
        await on.until(f"t{number}", lambda one: one.state == ModelState.MODEL_STATE_LOADED)
    assert on.service.process is not None
    runner = psutil.Process(on.service.process.pid)
    (gateway_id,) = members.tagged(f"gateway of {on.service.state.resolve()}")["gateway"]
    gateway = psutil.Process(gateway_id.pid)
    await asyncio.sleep(SETTLE_SECONDS)
    before = [sum(one.cpu_times()[:2]) for one in (runner, gateway)]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    shares = [(sum(one.cpu_times()[:2]) - was) / took for one, was in zip((runner, gateway), before, strict=True)]
    return shares[0], runner.memory_info().rss, shares[1], gateway.memory_info().rss


async def measure(rounds: int, seconds: float, report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as on:
            loaded, ended = await see_loads_and_exits(on, rounds)
            core, size, gateway_core, gateway_size = await look_after(on, seconds)
    report.head("what", "median", "9 of 10", "wanted")
    for what, values, wanted in (
        ("LOADED seen after an independent prober's first answer", loaded, WANTED_LOADED),
        ("end of a backend seen after SIGKILL", ended, WANTED_EXIT),
    ):
        median, late = statistics.median(values), share(values, 0.9)
        report.row(what, milliseconds(median), milliseconds(late), f"{milliseconds(wanted)} (median)")
    report.say()
    report.head(f"looking after {LOADED_MODELS} loaded models ({LOADED_MODELS * 3} processes)", "of a core", "resident")
    report.row("runner", f"{core:.2%}", f"{size / (1 << 20):.0f} MiB")
    report.row("gateway", f"{gateway_core:.2%}", f"{gateway_size / (1 << 20):.0f} MiB")
    report.row("wanted of the runner", f"< {WANTED_CORE:.0%}", f"< {WANTED_BYTES >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.runner", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="loads and kills")
    parser.add_argument("--seconds", type=float, default=30.0, help="of looking after models")
    options = parser.parse_args()
    with Report("runner") as report:
        asyncio.run(measure(options.rounds, options.seconds, report))


if __name__ == "__main__":
    main()
