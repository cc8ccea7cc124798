"""Runs the emulator by itself; ends on SIGINT, SIGTERM, or the end of standard input with ``--until-eof``."""

import argparse
import json
import os
import signal
import ssl
import sys
import threading
from pathlib import Path

from tests.hub.directory import load
from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import demo_repos


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description="A Hugging Face Hub on loopback.")
    parser.add_argument("--models", type=Path, help="directory of repositories: DIR/<organisation>/<name>/<files>")
    parser.add_argument("--demo", action="store_true", help="make and serve the repositories of the demo")
    parser.add_argument("--port", type=int, default=0, help="port of the HUB origin (0: a free one)")
    parser.add_argument("--address-file", type=Path, help="also write the line with the origins there")
    parser.add_argument("--blob-directory", type=Path, help="keep synthetic content there between runs")
    parser.add_argument("--user", action="append", default=[], metavar="NAME:TOKEN[:REPO,...]", help="an account")
    parser.add_argument(
        "--throttle", action="append", default=[], metavar="ORIGIN=BYTES", help="bytes a second, e.g. cdn=20e6"
    )
    parser.add_argument("--tls", type=Path, metavar="PEM", help="a certificate for 127.0.0.1 and its key: serve https")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args()


def announce(emulator: HubEmulator, address_file: Path | None) -> None:
    """Say where the origins are, in one JSON line."""
    line = json.dumps(emulator.addresses)
    if address_file is not None:
        partial = address_file.with_name(f"{address_file.name}.partial")
        partial.write_text(f"{line}\n")
        partial.replace(address_file)
    print(line, flush=True)


def tls_of(pem: Path | None) -> ssl.SSLContext | None:
    """What the origins listen with, if they speak TLS."""
    if pem is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def end_with_input(ended: threading.Event) -> None:
    """Read standard input to its end, which is that of the process that holds the other end of the pipe."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ended.set()


def main() -> None:
    arguments = parse_arguments()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    emulator = HubEmulator(port=arguments.port, blob_directory=arguments.blob_directory, tls=tls_of(arguments.tls))
    if arguments.models is not None:
        load(emulator.catalogue, arguments.models)
    if arguments.demo:
        demo_repos(emulator)
    for text in arguments.throttle:
        origin, _, rate = text.partition("=")
        emulator.throttle.set(origin, total=float(rate))
    for text in arguments.user:
        name, token, access = ([*text.split(":", 2), ""])[:3]
        emulator.add_user(name, token, [repo for repo in access.split(",") if repo])
    with emulator:
        announce(emulator, arguments.address_file)
        if arguments.until_eof:
            threading.Thread(target=end_with_input, args=(ended,), daemon=True).start()
        ended.wait()


if __name__ == "__main__":
    main()
