"""What is in the cache, kept beside it: read once, then read again only where a repository's folder has changed."""

import os
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from slipway_service.fault import Fault, Reason
from slipway_service.weights.cache_paths import RepoPaths, repo_of_folder
from slipway_service.weights.names import Commit, RepoId, Revision

from slipway_registry.cache.pins import PinBook
from slipway_registry.cache.records import CacheRecords, Key
from slipway_registry.cache.scan import Inode, RepoContents, SnapshotContents, read_repo
from slipway_registry.cache.snapshot import Record, Snapshot, snapshot_name, stand
from slipway_registry.cache.weigh import names_in, names_lost
from slipway_registry.transfer.errors import check_cache, disk_errors

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A snapshot that has appeared, changed, or (without `now`) gone, which one that cannot be read has too."""

    before: Snapshot | None
    now: Snapshot | None


class CacheIndex:
    """Reads the hub cache. `refresh` and `set_used` from one thread at a time; everything else from any.

    A repository that cannot be read, another user's say, is left out until it can be; its records are kept.

    Args:
        hub: the hub cache.
        records: uids, times and hashes.
        pins: for counts.
        clock: seconds since 1970.
    """

    def __init__(self, hub: Path, records: CacheRecords, pins: PinBook, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._records = records
        self._pins = pins
        self._clock = clock
        self._known: defaultdict[RepoId, dict[Commit, Record]] = defaultdict(dict)
        for (repo, commit), record in records.snapshots().items():
            self._known[repo][commit] = record
        self._repos: dict[RepoId, RepoContents] = {}
        self._unreadable: dict[RepoId, str] = {}  # why
        self._names: Counter[Inode] = Counter()  # of each content, in the whole cache
        self._standing: dict[RepoId, dict[Commit, Snapshot]] = {}
        self._by_name: dict[str, Snapshot] = {}
        self._lock = threading.Lock()

    def refresh(
        self, repos: Iterable[RepoId] | None = None, *, anew: bool = False, closely: bool = False
    ) -> list[Change]:
        """Look what has changed, everywhere or in these repositories.

        Args:
            anew: build their snapshots again although the folders are as they were: pins or hashes have changed.
                What was hashed may have been written into before, so that this looks closely too.
            closely: see also whether somebody has written into contents: one `stat` for each.

        Raises:
            Fault: DISK_FAULT, the cache has gone; DISK_FULL or DISK_FAULT, the database cannot be written.
        """
        if repos is None:
            repos = self.folders()
        changed: set[RepoId] = set()
        had: set[Inode] = set()
        for repo in repos:
            before = self._repos.get(repo)
            if self._reread(repo, closely=closely or anew) or anew:
                changed.add(repo)
                had.update(names_in(before) if before else ())
        check_cache(self._hub)  # what went with it, before it was read or meanwhile, was not deleted
        return [change for repo in sorted(changed | self._sharing(changed, had)) for change in self._rebuild(repo)]

    def candidates(self) -> list[RepoId]:
        """Repositories that may have something: `folders`, but for those that could not be read."""
        return [repo for repo in self.folders() if not self.unreadable(repo)]

    def unreadable(self, repo: RepoId) -> bool:
        """Whether it could not be read when last looked."""
        with self._lock:
            return repo in self._unreadable

    def folders(self) -> list[RepoId]:
        """Repositories that have a folder, or had one when last looked.

        Raises:
            Fault: DISK_FAULT, the cache has gone or cannot be read; so does `candidates`.
        """
        with self._lock:
            return sorted(
                _repositories(self._hub) | set(self._repos) | {repo for repo, it in self._known.items() if it}
            )

    def get(self, name: str) -> Snapshot:
        """A snapshot by its name.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND.
        """
        if (found := self._by_name.get(name)) is None:
            raise Fault(Reason.SNAPSHOT_NOT_FOUND, f"The cache holds no {name}.", resource=name)
        return found

    def find(self, repo: RepoId, revision: Revision) -> Snapshot:
        """A snapshot by repository and commit, a unique beginning of one, or a ref that the cache knows.

        Raises:
            Fault: SNAPSHOT_NOT_FOUND; DISK_FAULT, the repository cannot be read.
        """
        with self._lock:
            contents, commits, why = self._repos.get(repo), self._in(repo), self._unreadable.get(repo)
        if why:
            raise Fault(Reason.DISK_FAULT, f"{repo} in the cache cannot be read: {why}")
        commit = (contents.refs.get(revision) if contents else None) or revision.within(commits)
        found = self._by_name.get(snapshot_name(repo, commit)) if commit else None
        if found is None:
            text = f"The cache holds no {repo} at {revision}: download it first."
            raise Fault(Reason.SNAPSHOT_NOT_FOUND, text, resource=f"{repo}@{revision}")
        return found

    def all(self) -> list[Snapshot]:
        """Every snapshot, by repository and commit."""
        with self._lock:
            return [self._standing[repo][commit] for repo in sorted(self._standing) for commit in self._in(repo)]

    def of(self, repo: RepoId) -> list[Snapshot]:
        """The snapshots of a repository, by commit."""
        with self._lock:
            return [self._standing[repo][commit] for commit in self._in(repo)]

    def repos(self) -> list[RepoContents]:
        """Every repository that has anything, as last read."""
        with self._lock:
            return list(self._repos.values())

    def set_used(self, key: Key, at: float) -> None:
        """Note that a snapshot was pinned or downloaded; shown after the next `refresh(…, anew=True)`."""
        repo, commit = key
        if (record := self._known[repo].get(commit)) is not None:
            self._known[repo][commit] = replace(record, use_time=at)
            self._records.set_used(key, at)

    def _in(self, repo: RepoId) -> list[Commit]:
        return sorted(self._standing.get(repo, ()))

    def _reread(self, repo: RepoId, *, closely: bool) -> bool:
        """Whether there is anything new of the repository."""
        before = self._repos.get(repo)
        if before is not None and before.holds and (not closely or before.contents_hold):
            return False
        contents = self._read(repo)
        if before is not None:
            self._names.subtract(names_in(before))
        self._names.update(names_in(contents) if contents else ())
        with self._lock:
            if contents and (contents.snapshots or contents.blobs):
                self._repos[repo] = contents
            else:
                self._repos.pop(repo, None)
        return contents != before or (contents is not None and set(self._known[repo]) != set(contents.snapshots))

    def _read(self, repo: RepoId) -> RepoContents | None:
        """The repository as it is; None where it cannot be read, which the log says once."""
        try:
            contents = read_repo(RepoPaths(self._hub, repo))
        except OSError as error:
            if not self.unreadable(repo):
                log.warning("a repository is left out until it can be read", repo=repo, error=str(error))
            with self._lock:
                self._unreadable[repo] = str(error)
            return None
        with self._lock:
            self._unreadable.pop(repo, None)
        return contents

    def _sharing(self, repos: set[RepoId], had: set[Inode]) -> set[RepoId]:
        """Other repositories with contents that these have, or had: what one of them would free has changed too."""
        inside: Counter[Inode] = Counter()
        for repo in repos & self._repos.keys():
            inside.update(names_in(self._repos[repo]))
        outside = {inode for inode in had | inside.keys() if self._names[inode] > inside[inode]}
        if not outside:
            return set()
        return {repo for repo, found in self._repos.items() if not outside.isdisjoint(names_in(found))}

    def _rebuild(self, repo: RepoId) -> list[Change]:
        contents = self._repos.get(repo)
        present = contents.snapshots if contents else {}
        if not self.unreadable(repo):
            self._remember(repo, present.values())
        before = self._standing.get(repo, {})
        now = self._built(contents) if contents else {}
        with self._lock:
            self._standing[repo] = now
            if not now:
                del self._standing[repo]
            for commit in before.keys() - now.keys():
                del self._by_name[snapshot_name(repo, commit)]
            self._by_name.update({it.name: it for it in now.values()})
        return [
            Change(before=before.get(commit), now=now.get(commit))
            for commit in sorted(before.keys() | now.keys())
            if before.get(commit) != now.get(commit)
        ]

    def _built(self, contents: RepoContents) -> dict[Commit, Snapshot]:
        repo = contents.repo
        checks = self._records.checks(repo)
        built = {}
        for commit, snapshot in contents.snapshots.items():
            own = names_lost(contents, commit).names
            exclusive = [inode for inode, count in own.items() if self._names[inode] == count]
            standing = stand(snapshot, contents, self._known[repo][commit], checks, exclusive)
            built[commit] = replace(standing, pin_count=len(self._pins.of(repo, commit)))
        return built

    def _remember(self, repo: RepoId, present: Iterable[SnapshotContents]) -> None:
        """Give snapshots that have appeared a uid, and forget the others.

        One that another program made counts as used when it was made.
        """
        now, known = self._clock(), self._known[repo]
        changed = {contents.commit: contents.changed for contents in present}
        for commit in known.keys() - changed.keys():
            self._records.forget_snapshot((repo, commit))
            del known[commit]
        new = {
            commit: Record(uid=uuid.uuid4().hex, create_time=now, use_time=min(now, changed[commit]))
            for commit in changed.keys() - known.keys()
        }
        if new:
            self._records.add_snapshots({(repo, commit): record for commit, record in new.items()})
            known.update(new)


def _repositories(hub: Path) -> set[RepoId]:
    check_cache(hub)
    with disk_errors(hub):
        return {repo for name in os.listdir(hub) if (repo := repo_of_folder(name))}
