"""ListSnapshots from the index against huggingface_hub's scan, over a cache of many small repositories.

python -m tests.bench.snapshots
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import scan_cache_dir
from slipway.registry.v1 import snapshot_service_pb2 as pb
from slipway_registry.cache.blobs import BlobShelf
from slipway_registry.cache.exclusion import RepoLocks
from slipway_registry.cache.index import CacheIndex
from slipway_registry.cache.layout import Modes
from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.publish import Publisher
from slipway_registry.cache.records import CacheRecords
from slipway_registry.jobs.store import Store
from slipway_registry.rpc.snapshot_log import SnapshotLog
from slipway_service.pages import fill_page
from slipway_service.validation import PageSize
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

REPOS, FILES = 1_000, 20
ROUNDS = 7
WANTED = 100.0
"""How much faster the list has to be than the scan."""


def fill(hub: Path) -> None:
    """A cache of `REPOS` repositories with `FILES` files each."""
    shelf = BlobShelf(hub, Modes(file=0o644, directory=0o755))
    publisher = Publisher(shelf, RepoLocks())
    for number in range(REPOS):
        repo = RepoId(f"org/model-{number:04}")
        blobs = shelf.prepare(repo).blobs
        listing = [
            RepoFile(
                path=FilePath(f"model-{file:05}.bin"), size_bytes=8, blob_id=f"{number * FILES + file:064x}", lfs=True
            )
            for file in range(FILES)
        ]
        for found in listing:
            (blobs / found.blob_id).write_bytes(b"12345678")
        publisher.publish(repo, Commit(f"{number:040x}"), listing, [it.path for it in listing], Revision("main"))


def list_all(log: SnapshotLog) -> int:
    """What ListSnapshots does for one page of everything, the answer's bytes included; how many it shows."""
    page, _ = fill_page(log.listed(None, ""), PageSize(REPOS))
    return len(pb.ListSnapshotsResponse(snapshots=page).SerializeToString()) and len(page)


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Print the figures; fail if the list is not as fast as promised."""
    with tempfile.TemporaryDirectory() as directory:
        hub = Path(directory) / "hub"
        hub.mkdir()
        fill(hub)
        store = Store.in_directory(Path(directory))
        records = CacheRecords(store)
        pins = PinBook(records, time.time())
        index = CacheIndex(hub, records, pins, time.time)
        log = SnapshotLog(store)

        def enter() -> None:
            for change in index.refresh():
                log.snapshot(change)

        first = seconds(enter, rounds=1)
        assert list_all(log) == REPOS
        scan = seconds(lambda: scan_cache_dir(hub), rounds=3)
        listed = seconds(lambda: list_all(log))
        look = seconds(enter)
        store.close()
    print(f"{REPOS} repositories of {FILES} files")
    print(f"scan_cache_dir        {scan * 1e3:9.1f} ms")
    print(f"ListSnapshots         {listed * 1e3:9.1f} ms   {scan / listed:.0f} times faster")
    print(f"first reading         {first * 1e3:9.1f} ms")
    print(f"look for changes      {look * 1e3:9.1f} ms")
    if scan / listed < WANTED:
        raise SystemExit(f"ListSnapshots is less than {WANTED:g} times faster than a scan")


if __name__ == "__main__":
    main()
