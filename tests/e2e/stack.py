"""Registry and runner as they are in production: processes, started by their commands, found by their address files."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
WAIT_SECONDS = 100.0
"""For anything that a service does by itself; what is waited for takes a second or two on an idle machine."""


@dataclass
class Service:
    """One of the two services as a process of its own."""

    name: str
    state: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> str:
        """What it has logged, over all its lives."""
        return self.state.with_suffix(".log").read_text(errors="replace")

    @property
    def address(self) -> str:
        """Where it serves gRPC."""
        return (self.state / "address").read_text().strip()

    @property
    def addresses(self) -> dict[str, str]:
        """All it listens on."""
        found: dict[str, str] = json.loads((self.state / "addresses.json").read_text())
        return found

    def start(self) -> None:
        """Start it and wait until it serves."""
        command: list[str | Path] = [BIN / f"slipway-{self.name}", "serve", "--state-dir", self.state, *self.arguments]
        with self.state.with_suffix(".log").open("ab") as log:
            process = self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

        def serves() -> bool:
            assert process.poll() is None, f"slipway-{self.name} ended:\n{self.log}"
            return _pid_of(self.state / "lock") == process.pid and (self.state / "address").exists()

        wait_for(serves, f"slipway-{self.name} to serve")

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Stack:
    """A registry, with these options and variables, and a runner on one Hub, and a person's shell beside them."""

    def __init__(
        self,
        directory: Path,
        endpoint: str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        runner_options: tuple[str, ...] = (),
    ) -> None:
        self.hf_home = directory / "hf"
        base = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
        self.environment = {**base, "HF_HOME": str(self.hf_home), "HF_ENDPOINT": endpoint, **(environment or {})}
        free = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
        self.registry = Service("registry", directory / "registry", (*free, *options), self.environment)
        self.directory = directory
        self.runner_options = runner_options

    @property
    def hub_cache(self) -> Path:
        """The cache that both services use."""
        return self.hf_home / "hub"

    def start(self) -> None:
        """Start both, or neither."""
        self.registry.start()
        try:
            self._start_runner()
        except BaseException:
            self.registry.stop()
            raise

    def _start_runner(self) -> None:
        arguments = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--gateway-listen=127.0.0.1:0")
        registry = ("--registry", self.registry.address)
        self.runner = Service(
            "runner", self.directory / "runner", arguments + registry + self.runner_options, self.environment
        )
        self.runner.start()

    def stop(self) -> None:
        """Stop both, whatever state they are in, and hold them to having left nothing behind."""
        for service in (self.runner, self.registry):
            if service.process is not None and service.process.poll() is None:
                assert service.stop() == 0, service.log

    def slipway(self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None) -> Result:
        """Run the `slipway` command as a script would."""
        environment = {
            **self.environment,
            "SLIPWAY_REGISTRY": self.registry.address,
            "SLIPWAY_RUNNER": self.runner.address,
            **(env or {}),
        }
        done = subprocess.run(
            [BIN / "slipway", *arguments], env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
        )
        if check:
            assert done.returncode == 0, f"slipway {' '.join(arguments)}: {done.stderr}\n{self.runner.log[-3000:]}"
        return Result(done.returncode, done.stdout, done.stderr)

    def curl(self, service: Service, method: str, request: object = None, *, seconds: float = WAIT_SECONDS) -> Result:
        """Call a method with `buf curl`, which learns the contract by reflection, as grpcurl does.

        `seconds` is the deadline that the service is given.
        """
        command: list[str | Path] = [BIN / "buf", "curl", "--http2-prior-knowledge", "--protocol", "grpc"]
        command += ["--timeout", f"{seconds:g}s"]
        if request is not None:
            command += ["--data", json.dumps(request)]
        url = f"http://{service.address}" + (f"/{method}" if method else "")
        done = subprocess.run(
            [*command, url] if method else [*command, "--list-services", url],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            cwd=self.directory,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def in_flight(self) -> float:
        """Requests that the runner's models are answering, as its metrics count them."""
        return sum(self.metric("slipway_gateway_in_flight{"))

    def metric(self, beginning: str) -> list[float]:
        """The values of the runner's series that begin like this."""
        with urllib.request.urlopen(
            f"http://{self.runner.addresses['metrics']}/metrics", timeout=WAIT_SECONDS
        ) as answer:
            lines = answer.read().decode().splitlines()
        return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(beginning)]

    def pins(self) -> list[dict[str, Any]]:
        """All there are, as the registry lists them."""
        answer = self.curl(self.registry, "slipway.registry.v1.SnapshotService/ListPins", {})
        assert answer.code == 0, answer.err
        found: list[dict[str, Any]] = json.loads(answer.out).get("pins", [])
        return found


def running(pid: int) -> bool:
    """Whether a process runs, any thread of it; one that has ended and that init has not collected yet does not."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look every 20 ms until a condition holds; what happens in other processes cannot be awaited in another way."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:.0f} s for {what}"
        time.sleep(0.02)


def documents(text: str) -> Iterable[Any]:
    """JSON documents that follow each other, as `buf curl` prints a stream."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def _pid_of(lock: Path) -> int:
    try:
        return int(lock.read_text() or 0)
    except FileNotFoundError:
        return 0
