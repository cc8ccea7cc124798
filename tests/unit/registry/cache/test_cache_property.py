"""Random sequences of what happens to a cache never lose a pinned byte, dangle a link, or count a byte twice."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from slipway_registry.cache.hold import Hold
from slipway_registry.cache.prune import Rules
from slipway_registry.cache.snapshot import FileStanding, Snapshot
from slipway_registry.cache.usage import read_usage
from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths
from slipway_service.weights.names import Commit, RepoId, Revision
from slipway_service.weights.selection import PatternSelection

from tests.unit.registry.cache.caches import Cache

REPOS = ["org/a", "org/b"]
COMMITS = ["a" * 40, "b" * 40, "c" * 40]
CONTENTS = [b"1" * 100, b"2" * 200, b"3" * 400]
PROJECTOR = "mmproj-model-f16.gguf"
"""What both variants need."""
PATHS = ["config.json", "model-Q4_K_M.gguf", "sub/model-Q8_0.gguf", PROJECTOR]


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
        self.held: dict[str, dict[Path, bytes]] = {}
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
            return asyncio.run(body())
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
        taken = self.do(self.cache.keeper.pin, hold)
        if not isinstance(taken, Fault):
            found, _, files = taken
            root = self.cache.paths(found.repo).snapshot(found.commit)
            self.held[found.id] = {root / it.file.path: (root / it.file.path).read_bytes() for it in files}
            assert all(len(self.held[found.id][root / it.file.path]) == it.file.size_bytes for it in files)

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
        before, where = disk(self.cache.hub), self.cache.paths(snapshot.repo)
        would = self.do(self.cache.remover.delete, snapshot.name, variant=variant, validate_only=True)
        seen = next((it for it in self.cache.index.all() if it.name == snapshot.name), snapshot)
        expected = None if isinstance(would, Fault) else going(where, snapshot.commit, would.removal.paths)
        freed = lost(names(self.cache.hub), expected or set())
        done = self.do(self.cache.remover.delete, snapshot.name, variant=variant)
        if isinstance(done, Fault):
            assert done.reason is not Reason.SNAPSHOT_PINNED or blocked
            assert str(done) == str(would)
        else:
            assert done == would
            assert done.removal.freed_bytes == freed == before - disk(self.cache.hub)
            assert not any(os.path.lexists(path) for path in expected or ())
            assert done.removal.loss.blobs == {path.name for path in expected or () if path.parent == where.blobs}
            if variant:
                there = {it.file.path for it in seen.files if it.inode}
                needed = any(it.name != variant and it.variant.files[0].path in there for it in seen.variants)
                assert (PROJECTOR in done.removal.paths) == (PROJECTOR in there and not needed)
            assert not blocked or variant
            if done.removal.whole:
                assert not where.snapshot(snapshot.commit).exists()
                assert not where.tree(snapshot.commit).exists()
            else:
                folders = [where.snapshot(snapshot.commit), *where.snapshot(snapshot.commit).glob("*/")]
                assert all(any(folder.iterdir()) for folder in folders)

    @rule(place=st.integers(0, 5))
    def delete_what_is_pinned(self, place: int) -> None:
        if pins := self.cache.pins.all():
            refused = self.do(self.cache.remover.delete, pins[place % len(pins)].snapshot)
            assert isinstance(refused, Fault)
            assert refused.reason is Reason.SNAPSHOT_PINNED

    @rule(quota=st.one_of(st.none(), st.integers(0, 1500)), unused_for=st.one_of(st.none(), st.integers(0, 50)))
    def prune(self, quota: int | None, unused_for: int | None) -> None:
        rules = Rules(quota=quota, unused_for=unused_for)
        would = self.do(self.cache.pruner.prune, rules, validate_only=True)
        before = disk(self.cache.hub)
        done = self.do(self.cache.pruner.prune, rules, validate_only=False)
        assert done == would
        assert sum(item.freed_bytes for item in done.items) == before - disk(self.cache.hub)

    @rule(place=st.integers(0, 5), how=st.sampled_from(["append", "overwrite", "truncate"]))
    def somebody_writes_into_a_content(self, place: int, how: str) -> None:
        """Seen at once by who asks for the snapshot; a damage that is found then is not forgotten."""
        if not (snapshots := self.cache.index.all()):
            return
        snapshot = self.do(self.cache.keeper.get, snapshots[place % len(snapshots)].name)
        paths = self.cache.paths(snapshot.repo)
        standing = next((it for it in snapshot.files if it.present and it.file.blob_id), None)
        if standing is None or not snapshot.listed:
            return
        file = paths.snapshot(snapshot.commit) / standing.file.path
        write_into(file, how)
        for promised in self.held.values():
            promised.update({path: path.read_bytes() for path in promised if path.exists() and path.samefile(file)})
        seen = self.standing(snapshot, standing)
        assert seen.verify_time is None
        assert not seen.damaged
        assert seen.present == (file.stat().st_size == standing.file.size_bytes)
        self.cache.verify(snapshot, [standing.file])
        self.do(self.cache.keeper.refresh, [snapshot.repo], anew=True)
        for _ in range(2):
            seen = self.standing(snapshot, standing)
            right = file.read_bytes() == files_of(snapshot.repo, snapshot.commit)[standing.file.path]
            assert (seen.sound, seen.verify_time is not None) == (right, right)

    def standing(self, snapshot: Snapshot, of: FileStanding) -> FileStanding:
        found: Snapshot = self.do(self.cache.keeper.get, snapshot.name)
        return next(it for it in found.files if it.file.path == of.file.path)

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
        self.do(self.cache.keeper.expire)

    @invariant()
    def nothing_pinned_is_lost(self) -> None:
        for pin in self.cache.pins.all():
            for path, content in self.held[pin.id].items():
                assert path.read_bytes() == content

    @invariant()
    def no_link_dangles_and_hf_is_content(self) -> None:
        for link in self.cache.hub.glob("models--*/snapshots/**/*"):
            assert link.exists(), link
        assert not scan_cache_dir(self.cache.hub).warnings

    @invariant()
    def refs_name_what_is_there_and_pins_have_theirs(self) -> None:
        for ref in self.cache.hub.glob("models--*/refs/**/*"):
            if ref.is_file():
                commit = ref.read_text()
                root = self.cache.hub / ref.relative_to(self.cache.hub).parts[0]
                assert (root / "snapshots" / commit).is_dir(), ref
        for pin in self.cache.pins.all():
            assert self.cache.paths(pin.repo).keep_ref(pin.commit).is_file()

    @invariant()
    def every_byte_counts_once(self) -> None:
        self.do(self.cache.keeper.rescan, closely=True)
        usage = read_usage(self.cache.index, self.cache.pins, self.cache.hub)
        assert usage.snapshots == once(self.cache.hub.glob("models--*/snapshots/**/*"))
        assert usage.pinned == once(
            file
            for pin in self.cache.pins.all()
            for file in self.cache.paths(pin.repo).snapshot(pin.commit).rglob("*")
            if pin.covers((str(file.relative_to(self.cache.paths(pin.repo).snapshot(pin.commit))),))
        )
        assert usage.trash == 0
        assert usage.snapshots + usage.partials == disk(self.cache.hub)
        for repo in usage.repos:
            assert repo.snapshots == once(self.cache.paths(repo.repo).snapshots.rglob("*"))
        assert {(it.repo, it.commit) for it in self.cache.index.all()} == {
            (repo, commit)
            for repo in REPOS
            for commit in COMMITS
            if self.cache.paths(repo).snapshot(Commit(commit)).is_dir()
        }
        all_names = names(self.cache.hub)
        for snapshot in self.cache.index.all():
            where = self.cache.paths(snapshot.repo)
            whole = (where.snapshot(snapshot.commit) / it for it in snapshot.present)
            assert snapshot.present_bytes == once(whole)
            alone = going(where, snapshot.commit, None)
            assert snapshot.exclusive_bytes == lost(all_names, alone)
            assert snapshot.pin_count == len(self.cache.pins.of(snapshot.repo, snapshot.commit))


def write_into(file: Path, how: str) -> None:
    """Change a content in place: no directory tells of it."""
    before = file.stat()
    with file.open("r+b") as content:
        if how == "truncate":
            content.truncate(before.st_size // 2)
        else:
            content.seek(0, os.SEEK_END if how == "append" else os.SEEK_SET)
            content.write(b"?")
    # Of a later time, as the next tick of the clock would have it.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def names(hub: Path) -> dict[int, set[Path]]:
    """Every name that contents have on the disk, by inode."""
    found: dict[int, set[Path]] = {}
    for place in ("blobs", "snapshots", ".ingest"):
        for file in hub.glob(f"models--*/{place}/**/*"):
            if file.is_file() and not file.is_symlink():
                found.setdefault(file.stat().st_ino, set()).add(file)
    return found


def disk(hub: Path) -> int:
    """Bytes of all model contents on the disk, each once."""
    return sum(next(iter(paths)).stat().st_size for paths in names(hub).values())


def once(files: Iterable[Path]) -> int:
    """Bytes of these files and of what links among them lead to, each content once."""
    return sum({file.stat().st_ino: file.stat().st_size for file in files if file.is_file()}.values())


def going(where: RepoPaths, commit: Commit, paths: Iterable[str] | None) -> set[Path]:
    """What has to go with these files of a snapshot, or with all: they, and blobs that no other file is or leads to."""
    root = where.snapshot(commit)
    all_files = {file for file in where.snapshots.rglob("*") if file.is_symlink() or file.is_file()}
    mine = {file for file in all_files if file.is_relative_to(root)} if paths is None else {root / it for it in paths}
    needed = {file.stat().st_ino for file in all_files - mine}
    inodes = {file.stat().st_ino for file in mine} - needed
    return mine | {blob for blob in where.blobs.glob("*") if blob.stat().st_ino in inodes}


def lost(names: dict[int, set[Path]], gone: set[Path]) -> int:
    """Bytes of the contents that have no name left when these have gone."""
    return sum(next(iter(paths)).stat().st_size for paths in names.values() if paths <= gone)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    # A failure of twenty steps can be read; to shrink it would outlast the test's time limit.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    print_blob=False,
    database=None,
)
