"""The gateway's process: serves HTTP on a TCP port and its control on a Unix socket, until it is told to stop."""

import argparse
import os
import signal
import socket
from pathlib import Path

import anyio
from aiohttp import web

from slipway_runner.gateway import control
from slipway_runner.gateway.control import Control
from slipway_runner.gateway.proxy import Proxy, session

CLOSE_SECONDS = 5.0
"""That answers under way may take when the process is told to stop; models have drained by then."""


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m slipway_runner.gateway", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--config", default="", help="told back to the runner, which compares it")
    anyio.run(serve, parser.parse_args())


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, SIGINT or /stop."""
    stop = anyio.Event()
    listener = socket.create_server((options.host, options.port), family=_family(options.host), backlog=1024)
    host, port = listener.getsockname()[:2]
    async with session() as client:
        proxy = Proxy(client)
        public = web.AppRunner(
            proxy.application(), handler_cancellation=True, access_log=None, shutdown_timeout=CLOSE_SECONDS
        )
        private = web.AppRunner(
            Control(proxy, address=_address(host, port), config=options.config, stop=stop).application(),
            access_log=None,
            shutdown_timeout=CLOSE_SECONDS,
        )
        for runner in (public, private):
            await runner.setup()
        try:
            await web.SockSite(public, listener).start()
            os.umask(0o177)
            options.socket.unlink(missing_ok=True)
            with control.reachable(options.socket) as path:
                await web.UnixSite(private, path).start()
            await _until_stopped(stop)
        finally:
            for runner in (public, private):
                await runner.cleanup()


async def _until_stopped(stop: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:

        async def obey() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    stop.set()

        tasks.start_soon(obey)
        await stop.wait()
        tasks.cancel_scope.cancel()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
