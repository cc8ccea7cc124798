"""The main job from end to end, as a person would do it by hand.

Starts a Hub emulator (or uses the real Hub), a registry and a runner in a directory of their own, then runs the
`slipway` commands that take a model from its name to an answer, printing each before it runs. Exits with the first
command that fails.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
START_TIMEOUT = 60.0
"""Seconds a service may take to say its address; a cold import of its dependencies takes about two."""
STOP_TIMEOUT = 40.0
"""Seconds a service may take to stop: the runner's own bound for its backends is 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model a demo is about."""

    repo_id: str
    variant: str
    query: str
    model_id: str
    throttle: tuple[str, ...] = ()
    """What keeps the emulator to the pace of a network, so that there is a download to watch."""


DEFAULT_PORTS: Mapping[str, tuple[str, ...]] = {"registry": (), "runner": ()}
FREE_PORTS: Mapping[str, tuple[str, ...]] = {
    "registry": ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"),
    "runner": ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--gateway-listen=127.0.0.1:0"),
}

SUBJECTS: Mapping[tuple[str, str], Subject] = {
    ("emulator", "llama-server"): Subject(
        repo_id="slipway-demo/tiny-chat-GGUF",
        variant="Q4_K_M",
        query="tiny chat",
        model_id="tiny-chat",
        throttle=("--throttle", "cdn=8e6"),
    ),
    ("emulator", "transformers"): Subject(
        repo_id="slipway-demo/small-llama",
        variant="",
        query="small llama",
        model_id="small-llama",
        throttle=("--throttle", "cdn=80e6", "--throttle", "cas=80e6"),
    ),
    ("real", "llama-server"): Subject(
        repo_id="Qwen/Qwen2.5-0.5B-Instruct-GGUF", variant="Q4_K_M", query="qwen2.5 0.5b instruct", model_id="qwen"
    ),
    ("real", "transformers"): Subject(
        repo_id="HuggingFaceTB/SmolLM2-135M-Instruct", variant="", query="smollm2 135m", model_id="smollm2"
    ),
}


def main() -> int:
    options = _options()
    subject = SUBJECTS[options.hub, options.backend]
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as exceptions, so that what was started ends too
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(ending, lambda number, _: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="slipway-demo-"))
    try:
        with _environment(directory, options.hub, subject, stay=options.stay) as environment:
            if options.stay:
                return _stay()
            return _walk(subject, options.backend, environment)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("llama-server", "transformers"), default="llama-server")
    parser.add_argument("--hub", choices=("emulator", "real"), default="emulator")
    parser.add_argument("--stay", action="store_true", help="keep the services up on their default ports until Ctrl-C")
    return parser.parse_args()


def _walk(subject: Subject, backend: str, environment: Mapping[str, str]) -> int:
    """The demo itself; returns the exit code of the first command that fails, else 0."""
    variant = ["--variant", subject.variant] if subject.variant else []
    started = time.monotonic()
    for command in (
        ["search", subject.query],
        ["info", subject.repo_id],
        ["pull", subject.repo_id, *variant],
        ["load", subject.repo_id, "--id", subject.model_id, "--backend", backend, *variant],
        ["ps"],
        ["chat", subject.model_id, "Hello, how are you today?"],
        ["unload", subject.model_id],
    ):
        print(f"\n\x1b[1m$ slipway {shlex.join(command)}\x1b[0m", flush=True)
        result = subprocess.run([BIN / "slipway", *command], env=environment, check=False)
        if result.returncode != 0:
            print(f"\nThe demo failed: `slipway {command[0]}` exited with {result.returncode}.", file=sys.stderr)
            return result.returncode
    print(f"\nFrom a name to an answer in {time.monotonic() - started:.0f} s.")
    return 0


def _stay() -> int:
    """Waits for Ctrl-C, having said how to talk to the services."""
    print("\nA registry and a runner are up. In another terminal:\n")
    print(f"  {BIN / 'slipway'} search tiny")
    print(f"  {BIN / 'slipway'} load slipway-demo/tiny-chat-GGUF\n")
    print("Ctrl-C stops them.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


@contextlib.contextmanager
def _environment(directory: Path, hub: str, subject: Subject, *, stay: bool) -> Iterator[dict[str, str]]:
    """Starts what the commands talk to; yields the environment that finds it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "HF_"))}
    environment["HF_HOME"] = str(directory / "hf")
    environment["PATH"] = f"{BIN}:{environment.get('PATH', '')}"
    listen = DEFAULT_PORTS if stay else FREE_PORTS
    with contextlib.ExitStack() as stack:

        def start(name: str, address: Path, *command: str | Path) -> str:
            log = directory / f"{name}.log"
            stack.enter_context(_service(command, environment, log))
            return _wait_for(address, log)

        if hub == "emulator":
            print("Starting the Hub emulator; making its models takes a few seconds.", flush=True)
            origins = directory / "hub.json"
            hub_command: tuple[str | Path, ...] = (
                sys.executable,
                "-m",
                "tests.hub",
                "--demo",
                "--address-file",
                origins,
                *subject.throttle,
            )
            environment["HF_ENDPOINT"] = json.loads(start("hub", origins, *hub_command))["hub"]
        for service in ("registry", "runner"):
            state = directory / service
            environment[f"SLIPWAY_{service.upper()}"] = start(
                service,
                state / "address",
                BIN / f"slipway-{service}",
                "serve",
                "--state-dir",
                state,
                *listen[service],
                *(["--registry", environment["SLIPWAY_REGISTRY"]] if service == "runner" else []),
            )
        yield environment


@contextlib.contextmanager
def _service(command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Runs a program for the length of the block, its output in `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"{command[0]} did not stop in {STOP_TIMEOUT:.0f} s and was killed", file=sys.stderr)


def _wait_for(file: Path, log: Path) -> str:
    """The content of a file that a service writes when it listens.

    Raises:
        SystemExit: with the service's last log lines, if it is not there after START_TIMEOUT.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text().strip()):
            return text
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise SystemExit(f"{log.stem} did not start in {START_TIMEOUT:.0f} s. Its last words:\n{tail}")


if __name__ == "__main__":
    sys.exit(main())
