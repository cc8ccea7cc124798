"""What the gateway costs a stream: ``python -m tests.bench.gateway [--seconds 5] [--nginx PATH]``.

The same clients read the same paced streams directly, through the gateway, and through nginx if there is one. Latency
is that of each token from its sending to its arrival; CPU is that of the process in between, for each token.
"""

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway_runner.gateway.ask import ask
from slipway_runner.gateway.launch import Place, Setup
from slipway_runner.gateway.routes import Route
from slipway_runner.process import proc
from slipway_service.values import ListenAddress

from tests.bench.contenders import pacer
from tests.bench.report import Report

CHECKOUT = Path(__file__).resolve().parents[2]
TOKENS_PER_SECOND = 50
STREAMS = (1, 32, 128)
FLAT_OUT_STREAMS = 32
WARM_UP_SECONDS = 1.0
"""Not counted: connections are made, and code is paged in."""

CHAT = "/v1/chat/completions"
SENT = re.compile(rb'"sent":(\d+)')
NGINX = """
worker_processes 1; daemon off; error_log stderr crit; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; proxy_temp_path {folder}; client_body_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_buffering off; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """Where clients connect, and whose CPU counts (with its children)."""

    name: str
    port: int
    pid: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds for each token's way, tokens a second, and CPU seconds a token."""

    latencies: Sequence[float]
    rate: float
    cpu: float

    @property
    def middle(self) -> float:
        return statistics.median(self.latencies)

    @property
    def late(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


class Reader(asyncio.Protocol):
    """One client. Everything that arrives before `start` is not counted."""

    def __init__(self, port: int, rate: int) -> None:
        body = b'{"model":"m","rate":%d}' % rate
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._ask = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._rest = b""
        self.counting = False
        self.tokens = 0
        self.latencies: list[float] = []
        self.broken = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._ask)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        if self.counting and end:
            sent = SENT.findall(whole)
            self.tokens += len(sent)
            self.latencies += [(now - int(one)) / 1e9 for one in sent]

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True


async def measure(contender: Contender, streams: int, rate: int, seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    readers = [Reader(contender.port, rate) for _ in range(streams)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", contender.port)  # type: ignore[misc]
    await asyncio.sleep(WARM_UP_SECONDS)
    before, began = cpu_seconds(contender.pid), loop.time()
    for reader in readers:
        reader.counting = True
    await asyncio.sleep(seconds)
    took, used = loop.time() - began, cpu_seconds(contender.pid) - before
    if any(reader.broken for reader in readers):
        raise SystemExit(f"{contender.name} broke a stream off")
    for reader in readers:
        assert reader.transport is not None
        reader.transport.abort()
    tokens = sum(reader.tokens for reader in readers)
    latencies = [one for reader in readers for one in reader.latencies]
    return Result(latencies, tokens / took, used / tokens)


def cpu_seconds(pid: int | None) -> float:
    """Of a process and its children (proc(5), fields 14 and 15 of stat)."""
    if pid is None:
        return 0.0
    family = [pid, *(one.id.pid for one in proc.processes() if one.parent == pid)]
    ticks = 0
    for one in family:
        fields = (proc.PROC / str(one) / "stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def upstream() -> Iterator[int]:
    with started([sys.executable, "-m", pacer.__name__]) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@asynccontextmanager
async def gateway(folder: Path, port: int) -> AsyncIterator[Contender]:
    place = Place(folder)
    listen = ListenAddress("127.0.0.1", 0)
    serving = await place.start(Setup(listen=listen), listen)
    route = Route(id="m", uid="m", task="generate", state="LOADED", port=port, served_name="m", paths={CHAT: CHAT})
    await ask(place.socket, "PUT", "/table", {"routes": [route.to_json()]})
    try:
        yield Contender("gateway", serving.address.port, serving.running.pid)
    finally:
        await place.end(serving, 0.0)


@asynccontextmanager
async def nginx(program: str, folder: Path, port: int) -> AsyncIterator[Contender]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=listen, upstream=port))
    with started([program, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        await until_connected(listen)
        yield Contender("nginx", listen, process.pid)


async def until_connected(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def compare(seconds: float, nginx_program: str | None, report: Report) -> None:
    async with AsyncExitStack() as stack:
        port = stack.enter_context(upstream())
        contenders = [Contender("direct", port, None)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders.append(await stack.enter_async_context(gateway(folder, port)))
        if nginx_program:
            contenders.append(await stack.enter_async_context(nginx(nginx_program, folder, port)))
        report.head("load", "by way of", "p50", "added p50", "added p99", "tokens/s", "of direct", "CPU/token")
        for streams, rate in (*((count, TOKENS_PER_SECOND) for count in STREAMS), (FLAT_OUT_STREAMS, 0)):
            results = [await measure(each, streams, rate, seconds) for each in contenders]
            load = f"{streams} x {rate}/s" if rate else f"{streams} flat out"
            for each, result in zip(contenders, results, strict=True):
                report.row(*cells(load, each, result, results[0]))


def cells(load: str, contender: Contender, result: Result, direct: Result) -> list[str]:
    first = [load, contender.name, milliseconds(result.middle)]
    if contender.pid is None:
        return [*first, "", "", f"{result.rate:,.0f}", "", ""]
    added = [milliseconds(result.middle - direct.middle), milliseconds(result.late - direct.late)]
    return [*first, *added, f"{result.rate:,.0f}", f"{result.rate / direct.rate:.1%}", f"{result.cpu * 1e6:.1f} µs"]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row")
    parser.add_argument("--nginx", default=shutil.which("nginx"), help="its program; default: the one on PATH")
    options = parser.parse_args()
    with Report("gateway") as report:
        if options.nginx is None:
            report.say("Without nginx, which is not installed: apt-get install nginx-light, or --nginx PATH.\n")
        asyncio.run(compare(options.seconds, options.nginx, report))


if __name__ == "__main__":
    main()
