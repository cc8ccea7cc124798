"""A registry that is killed at any moment, or whose host loses power: nothing is lost, nothing wrong is ever seen."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slipway_registry.jobs.store import Store
from slipway_registry.transfer.choice import Transport
from slipway_registry.transfer.frontier import Frontier
from slipway_registry.transfer.http import CONNECTIONS_PER_FILE
from slipway_registry.transfer.partial import DATA, FRONTIER
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import Commit, RepoId

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.repos import Repo
from tests.integration.registry.engines import listing_of

MIB = 1 << 20
RATE = 100e6  # bytes a second, of all connections together
CHECKOUT = Path(__file__).resolve().parents[2]
# What a kill may cost: what was received and not written over http; over Xet hf-xet's buffer and one xorb.
ALLOWED = {Transport.HTTP: 8 * MIB, Transport.XET: 64_000_000 + 64 * MIB}
DATA_ORIGINS = "/cdn/|/xorbs/"
# So many blocks behind the frontier does each power loss take.
LOST_BLOCKS = 5


@contextmanager
def registry(
    directory: Path, hub: HubEmulator, transport: Transport, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A registry at work in ``directory``, killed at the end."""
    command = [sys.executable, "-m", "tests.faults.driver", str(directory), hub.endpoint, "--transport", transport]
    with subprocess.Popen(
        [*command, *options], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def in_kernel(hub: HubEmulator) -> int:
    """Bytes of data that the Hub has sent, and that no client has received."""
    ports = {hub.origins["cdn"].port, hub.origins["cas"].port}
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        unsent, unread = (int(count, 16) for count in queues.split(":"))
        total += unsent * (int(local[-4:], 16) in ports) + unread * (int(remote[-4:], 16) in ports)
    return total


def sent_by(hub: HubEmulator) -> int:
    return sum(exchange.sent for exchange in hub.journal.requests(DATA_ORIGINS))


def kill(process: subprocess.Popen[bytes], hub: HubEmulator) -> int:
    """Kill it; how many bytes were sent to it, and had not been received by it."""
    process.send_signal(signal.SIGSTOP)
    before = sent_by(hub)
    unread = in_kernel(hub)
    process.kill()
    process.wait()
    hub.journal.over(DATA_ORIGINS)
    return unread + sent_by(hub) - before


def creation(repo: Repo) -> str:
    files = [[f.path, f.size_bytes, f.blob_id, f.lfs, f.xet_hash] for f in listing_of(repo.head)]
    return json.dumps({"repo": repo.id, "commit": repo.head.id, "files": files})


def run_for(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Let it work for so long; True if it has ended by itself."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def assert_nothing_wrong_is_visible(paths: RepoPaths, repo: Repo) -> None:
    for blob in paths.blobs.iterdir() if paths.blobs.exists() else ():
        data = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        assert blob.name in (hashlib.sha256(data).hexdigest(), git)
    snapshot = paths.snapshot(Commit(repo.head.id))
    if snapshot.exists():
        assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*")} == set(repo.head.files)
    for ref in paths.refs.rglob("*") if paths.refs.exists() else ():
        assert ref.is_dir() or (paths.snapshots / ref.read_text()).is_dir()


def assert_whole(paths: RepoPaths, repo: Repo) -> None:
    assert_nothing_wrong_is_visible(paths, repo)
    for file in repo.head.files.values():
        data = (paths.snapshot(Commit(repo.head.id)) / file.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file.blob.sha256


def assert_no_transition_is_missing(directory: Path) -> None:
    """Nor was any hash ever wrong: what a kill or a power loss took was known before it was hashed."""
    store = Store.in_directory(directory / "state")
    entries = store.replay(0)
    store.close()
    assert entries is not None
    assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1].download
    assert (entries[-1].download.state, entries[-1].download.mismatches) == ("SUCCEEDED", 0)


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
@pytest.mark.parametrize(
    ("size", "kills"),
    [(96 * MIB, 2), pytest.param(1024 * MIB, 20, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
    ids=["few", "many"],
)
def test_killed_at_any_moment(hub: HubEmulator, tmp_path: Path, transport: Transport, size: int, kills: int) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}", "model.safetensors": Random(size)}, xet=True)
    paths = RepoPaths(tmp_path / "hub", RepoId(repo.id))
    moments = random.Random(size)
    hub.throttle.set("cdn", total=RATE)
    hub.throttle.set("cas", total=RATE)
    killed = unread = 0
    for number in range(kills):
        options = ["--create", creation(repo)] if number == 0 else []
        with registry(tmp_path, hub, transport, *options) as process:
            if run_for(process, moments.uniform(0.05, 1.6 * size / RATE / kills)):
                break
            unread += kill(process, hub)
            killed += 1
        assert_nothing_wrong_is_visible(paths, repo)
    with registry(tmp_path, hub, transport) as process:
        assert process.wait(120) == 0
    assert_whole(paths, repo)
    assert_no_transition_is_missing(tmp_path)
    hub.journal.over(DATA_ORIGINS)
    again = (sent_by(hub) - unread - size) / max(1, killed)
    print(f"{transport}: {killed} kills, {again / MIB:.1f} MiB again per kill")
    assert again <= ALLOWED[transport]


def lose_power(directory: Path, moments: random.Random) -> None:
    """Zero some of what a partial holds, as a host that went down may; what is not there (any more) is left."""
    try:
        with (directory / FRONTIER).open("rb") as file:
            size = (directory / DATA).stat().st_size
            frontier = Frontier.load(file.fileno(), size)
    except FileNotFoundError:
        return
    if frontier is None:
        return
    full = [block for block in range(size // frontier.block_bytes) if frontier.entry(block)[0] == frontier.block_bytes]
    lost = moments.sample(full, min(LOST_BLOCKS, len(full)))
    with (directory / DATA).open("r+b") as file:
        for block in lost:
            file.seek(block * frontier.block_bytes + moments.randrange(frontier.block_bytes - 4096))
            file.write(bytes(4096))


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
@pytest.mark.parametrize(
    ("size", "losses"),
    [(96 * MIB, 2), pytest.param(1024 * MIB, 20, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
    ids=["few", "many"],
)
def test_power_lost_at_any_moment(
    hub: HubEmulator, tmp_path: Path, transport: Transport, size: int, losses: int
) -> None:
    repo = hub.add_repo("org/m", {"config.json": b"{}", "model.safetensors": Random(size)}, xet=True)
    paths = RepoPaths(tmp_path / "hub", RepoId(repo.id))
    partial = paths.ingest / repo.head.files["model.safetensors"].etag
    moments = random.Random(size)
    hub.throttle.set("cdn", total=RATE)
    hub.throttle.set("cas", total=RATE)
    lost = unread = 0
    for loss in range(losses):
        options = ["--create", creation(repo)] if loss == 0 else []
        with registry(tmp_path, hub, transport, *options, "--boot", str(uuid.UUID(int=loss))) as process:
            if run_for(process, moments.uniform(0.4, 1.6) * size / RATE / losses):
                break
            unread += kill(process, hub)
            lost += 1
        lose_power(partial, moments)
        assert_nothing_wrong_is_visible(paths, repo)
    assert lost
    with registry(tmp_path, hub, transport, "--boot", str(uuid.UUID(int=losses))) as process:
        assert process.wait(120) == 0
    assert_whole(paths, repo)
    assert_no_transition_is_missing(tmp_path)
    hub.journal.over(DATA_ORIGINS)
    again = (sent_by(hub) - unread - size) / lost
    print(f"{transport}: {lost} power losses, {again / MIB:.1f} MiB again per loss")
    broken_off = CONNECTIONS_PER_FILE  # blocks, one of each connection at most
    assert again <= ALLOWED[transport] + (LOST_BLOCKS + broken_off) * MIB
