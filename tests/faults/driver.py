"""A registry without its API, as a process that can be killed: ``python -m tests.faults.driver OPTIONS``.

It prints one line when it is ready and one for each transition, and ends when no download is live.
"""

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import structlog
from slipway_registry.jobs.requests import CreateRequest
from slipway_registry.transfer.choice import Transport
from slipway_registry.transfer.wire import WireSettings
from slipway_registry.transfer.xet import XetSettings
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from tests.integration.registry.engines import Bench, engine_in


def main(arguments: Sequence[str]) -> None:
    """Run until the work is done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("endpoint")
    parser.add_argument("--create", help="JSON: repo, commit, files [path, size, blob id, lfs, xet hash]")
    parser.add_argument("--transport", type=Transport, default=Transport.HTTP)
    parser.add_argument("--boot", type=uuid.UUID)
    parser.add_argument("--stall-timeout", type=float, default=30.0)
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    anyio.run(_run, options)


async def _run(options: argparse.Namespace) -> None:
    xet = XetSettings(buffer_bytes=64_000_000)
    wire = replace(WireSettings(), stall_timeout=options.stall_timeout)
    async with engine_in(
        options.directory, options.endpoint, transport=options.transport, boot=options.boot, xet=xet, wire=wire
    ) as bench:
        if options.create:
            await bench.scheduler.create(parse_request(json.loads(options.create)))
        print("ready", flush=True)
        await _follow(bench)


async def _follow(bench: Bench) -> None:
    told = 0
    while True:
        entries = bench.told.entries[told:]
        told += len(entries)
        for entry in entries:
            if entry.download:
                print(json.dumps([entry.uid, entry.download.state, entry.revision]), flush=True)
        if all(item.state.terminal for item in await bench.scheduler.page(limit=99)):
            return
        await bench.told.news(patience=None)  # it may be stopped for a minute


def parse_request(value: dict[str, object]) -> CreateRequest:
    """What `--create` says."""
    files: list[list[object]] = value["files"]  # type: ignore[assignment]
    listing = [
        RepoFile(path=FilePath(str(path)), size_bytes=size, blob_id=str(blob), lfs=bool(lfs), xet_hash=str(xet))  # type: ignore[arg-type]
        for path, size, blob, lfs, xet in files
    ]
    return CreateRequest(
        repo=RepoId(str(value["repo"])),
        revision=Revision("main"),
        commit=Commit(str(value["commit"])),
        listing=listing,
        paths=[file.path for file in listing],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
