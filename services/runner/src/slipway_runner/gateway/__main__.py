"""The gateway's process: serves HTTP on one listening socket and its control on another, until it is told to stop.

It inherits both from the runner, which so knows at once whether the address is free, and where connections may wait
until this process takes them.
"""

import argparse
import gc
import os
import resource
import signal
import socket
from pathlib import Path

import anyio
from aiohttp import web
from slipway_service import logs
from slipway_service.logs import LogFormat, LogLevel
from slipway_service.values import ListenAddress

from slipway_runner.gateway import upstream
from slipway_runner.gateway.control import RETIRED, Control, Stop
from slipway_runner.gateway.keys import ApiKeys
from slipway_runner.gateway.meters import Meters
from slipway_runner.gateway.proxy import Proxy
from slipway_runner.process.logfile import LogFile

STOP_SECONDS = 5.0
"""That answers under way may take after a signal."""

CANCEL_SECONDS = 1.0
"""That cancelled requests may take to end."""

BACKLOG = 1024
"""Connections that wait to be taken; a burst of clients that reconnect is taken within a second."""

LOG_KEEP = 1 << 20
"""Bytes of this process's log that are kept; it is looked at every `LOG_LOOK` seconds."""

LOG_LOOK = 60.0


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m slipway_runner.gateway", description=__doc__)
    parser.add_argument("--public", required=True, type=int, metavar="FD", help="listening TCP socket")
    parser.add_argument("--control", required=True, type=int, metavar="FD", help="listening Unix socket")
    parser.add_argument("--setup", required=True, help="told back to the runner, which compares it")
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--log", required=True, type=Path, help="the file that standard output is, to be kept short")
    options = parser.parse_args()
    logs.configure(style=LogFormat.CONSOLE, level=LogLevel.INFO)
    _allow_many_connections()
    anyio.run(serve, options)
    Path(RETIRED.format(pid=os.getpid())).unlink(
        missing_ok=True
    )  # in the working directory, which is the runner's state


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, SIGINT or /stop; then take nobody any more and finish what is under way."""
    stop = Stop(asked=anyio.Event(), closed=anyio.Event(), seconds=STOP_SECONDS)
    public = socket.socket(fileno=options.public)
    meters = Meters()
    async with upstream.session() as client, anyio.create_task_group() as tasks:
        proxy = Proxy(client, ApiKeys(options.api_key_file), meters)
        address = str(ListenAddress(*public.getsockname()[:2]))
        control = Control(proxy, setup=options.setup, address=address, stop=stop, metrics=meters.registry)
        servers = proxy.server(CANCEL_SECONDS), control.server(CANCEL_SECONDS)
        for server, listener in zip(servers, (public, socket.socket(fileno=options.control)), strict=True):
            await server.setup()
            await web.SockSite(server, listener, backlog=BACKLOG).start()
        gc.freeze()  # what was imported stays; collections need not look at it
        tasks.start_soon(_obey_signals, stop)
        tasks.start_soon(_keep_log_short, LogFile(options.log))
        await stop.asked.wait()
        await _close(servers[0])
        stop.closed.set()
        await proxy.traffic.all_idle(stop.seconds)
        for server in servers:
            await server.cleanup()
        tasks.cancel_scope.cancel()


async def _close(public: web.AppRunner) -> None:
    """Take no more connections, and end those that wait for a next request. The control goes on: drains ask it."""
    for site in public.sites:
        await site.stop()
    if public.server is not None:
        public.server.pre_shutdown()


async def _obey_signals(stop: Stop) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.ask(STOP_SECONDS)


async def _keep_log_short(log: LogFile) -> None:
    while True:
        await anyio.sleep(LOG_LOOK)
        if log.size() > 2 * LOG_KEEP:
            log.trim(LOG_KEEP)


def _allow_many_connections() -> None:
    """A stream takes two descriptors, and the usual soft limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
