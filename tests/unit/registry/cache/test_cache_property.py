"""Random sequences of what happens to a cache never lose a pinned byte, dangle a link, or count a byte twice."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import anyio
from huggingface_hub import scan_cache_dir
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.prune import Rules
from slipway_registry.cache.usage import read_usage
from slipway_service.fault import Fault, Reason
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import PatternSelection

from tests.unit.registry.cache.caches import Cache

REPOS = ["org/a", "org/b"]
COMMITS = ["a" * 40, "b" * 40, "c" * 40]
CONTENTS = [b"1" * 100, b"2" * 200, b"3" * 400]
PATHS = ["config.json", "model-Q4_K_M.gguf", "sub/model-Q8_0.gguf"]


def files_of(repo: str, commit: str) -> dict[str, bytes]:
    """What a commit has: contents are shared within it, between commits, and between repositories."""
    start = REPOS.index(repo) + COMMITS.index(commit)
    return {path: CONTENTS[(start + place // 2) % len(CONTENTS)] for place, path in enumerate(PATHS)}


repos, commits, paths = st.sampled_from(REPOS), st.sampled_from(COMMITS), st.sampled_from(PATHS)


class CacheMachine(RuleBasedStateMachine):
    """Works on a real directory. `held` is what the pins promise: path and content."""

    @initialize(symlinks=st.booleans())
    def begin(self, symlinks: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="slipway-cache-"))
        self.cache = Cache(self.directory, symlinks=symlinks)
        # Two repositories that share contents, by hard links.
        for repo, commit in zip(REPOS, reversed(COMMITS[:2]), strict=True):
            self.download(repo, commit, None)

    def teardown(self) -> None:
        self.cache.close()
        shutil.rmtree(self.directory)

    def do(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """The call's answer, or the fault that it is refused with."""

        async def body() -> Any:
            return await call(*arguments, **options)

        try:
            return anyio.run(body)
        except Fault as fault:
            if fault.reason in (Reason.INTERNAL, Reason.DISK_FAULT):
                raise
            return fault

    @rule(repo=repos, commit=commits, only=st.one_of(st.none(), st.lists(paths, min_size=1, unique=True)))
    def download(self, repo: str, commit: str, only: list[str] | None) -> None:
        self.cache.publish(repo, commit, files_of(repo, commit), only)
        self.do(self.cache.keeper.used, RepoId(repo), Commit(commit))

    @rule(place=st.integers(0, 5), path=st.one_of(st.none(), paths), claim=st.sampled_from(["x", "y"]))
    def pin(self, place: int, path: str | None, claim: str) -> None:
        if not (snapshots := self.cache.index.all()):
            return
        snapshot = snapshots[place % len(snapshots)]
        hold = Hold(
            repo=snapshot.repo,
            revision=Revision(snapshot.commit),
            selection=PatternSelection(include=(path,)) if path else None,
            holder="h",
            claim=claim,
            ttl=3600.0,
        )
        self.do(self.cache.keeper.pin, hold)

    @rule(place=st.integers(0, 5))
    def unpin(self, place: int) -> None:
        if pins := self.cache.pins.all():
            self.do(self.cache.keeper.unpin, pins[place % len(pins)].id)

    @rule(place=st.integers(0, 5), variant=st.sampled_from(["", "", "Q4_K_M", "Q8_0"]))
    def delete(self, place: int, variant: str) -> None:
        if not (snapshots := self.cache.index.all()):
            return
        snapshot = snapshots[place % len(snapshots)]
        blocked = self.cache.pins.of(snapshot.repo, snapshot.commit)
        before = disk(self.cache.hub)
        done = self.do(self.cache.keeper.delete, snapshot.name, variant=variant)
        if isinstance(done, Fault):
            assert done.reason is not Reason.SNAPSHOT_PINNED or blocked
        else:
            assert done.removal.freed_bytes == before - disk(self.cache.hub)
            assert not blocked or variant

    @rule(place=st.integers(0, 5))
    def delete_what_is_pinned(self, place: int) -> None:
        if pins := self.cache.pins.all():
            refused = self.do(self.cache.keeper.delete, pins[place % len(pins)].snapshot)
            assert isinstance(refused, Fault)
            assert refused.reason is Reason.SNAPSHOT_PINNED

    @rule(quota=st.one_of(st.none(), st.integers(0, 1500)), unused_for=st.one_of(st.none(), st.integers(0, 50)))
    def prune(self, quota: int | None, unused_for: int | None) -> None:
        rules = Rules(quota=quota, unused_for=unused_for)
        would = self.do(self.cache.keeper.prune, rules, validate_only=True)
        before = disk(self.cache.hub)
        done = self.do(self.cache.keeper.prune, rules, validate_only=False)
        assert done == would
        assert sum(item.freed_bytes for item in done.items) == before - disk(self.cache.hub)

    @rule(repo=repos, commit=commits)
    def another_program_downloads(self, repo: str, commit: str) -> None:
        """As huggingface_hub does: no listing of ours, no ref of ours, a link for each file."""
        where = self.cache.paths(repo)
        for path, content in files_of(repo, commit).items():
            blob = where.blobs / hashlib.sha256(content).hexdigest()
            link = where.snapshots / commit / path
            link.parent.mkdir(parents=True, exist_ok=True)
            where.blobs.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                blob.write_bytes(content)
            if not os.path.lexists(link):
                link.symlink_to(os.path.relpath(blob, link.parent))

    @rule(repo=repos, commit=commits)
    def another_program_deletes(self, repo: str, commit: str) -> None:
        """`hf cache rm` of a commit that nobody has pinned."""
        if self.cache.pins.of(RepoId(repo), Commit(commit)):
            return
        strategy = scan_cache_dir(self.cache.hub).delete_revisions(commit)
        held = {(pin.repo, pin.commit) for pin in self.cache.pins.all()}
        if not any((RepoId(name), Commit(commit)) in held for name in REPOS):
            strategy.execute()

    @rule()
    def hf_prunes(self) -> None:
        """`hf cache prune`: commits without a ref go, as its command has it."""
        detached = [
            revision.commit_hash
            for repo in scan_cache_dir(self.cache.hub).repos
            for revision in repo.revisions
            if not revision.refs
        ]
        scan_cache_dir(self.cache.hub).delete_revisions(*detached).execute()

    @rule(seconds=st.sampled_from([10.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.cache.time.seconds += seconds
        self.do(self.cache.keeper._expire)

    @invariant()
    def nothing_pinned_is_lost(self) -> None:
        for pin in self.cache.pins.all():
            root = self.cache.paths(pin.repo).snapshot(pin.commit)
            for path in pin.paths or [str(it.relative_to(root)) for it in root.rglob("*") if not it.is_dir()]:
                assert (root / path).read_bytes() == files_of(pin.repo, pin.commit)[path]

    @invariant()
    def no_link_dangles_and_hf_is_content(self) -> None:
        for link in self.cache.hub.glob("models--*/snapshots/**/*"):
            assert link.exists(), link
        assert not scan_cache_dir(self.cache.hub).warnings

    @invariant()
    def every_byte_counts_once(self) -> None:
        self.do(self.cache.keeper.rescan)
        sizes = {}
        for file in self.cache.hub.glob("models--*/snapshots/**/*"):
            if file.is_file():
                sizes[file.stat().st_ino] = file.stat().st_size
        usage = read_usage(self.cache.index, self.cache.pins, self.cache.hub)
        assert usage.snapshots == sum(sizes.values())
        assert usage.pinned <= usage.snapshots
        assert usage.partials == usage.trash == 0
        assert {(it.repo, it.commit) for it in self.cache.index.all()} == {
            (repo, commit)
            for repo in REPOS
            for commit in COMMITS
            if self.cache.paths(repo).snapshot(Commit(commit)).is_dir()
        }
        for snapshot in self.cache.index.all():
            assert snapshot.exclusive_bytes <= snapshot.present_bytes <= usage.snapshots


def disk(hub: Path) -> int:
    """Bytes of all model contents on the disk, by inode."""
    sizes = {}
    for place in ("blobs", "snapshots", ".ingest"):
        for file in hub.glob(f"models--*/{place}/**/*"):
            if file.is_file() and not file.is_symlink():
                sizes[file.stat().st_ino] = file.stat().st_size
    return sum(sizes.values())


TestCache = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    # A failure of twenty steps can be read; to shrink it would outlast the test's time limit.
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    print_blob=False,
    database=None,
)
