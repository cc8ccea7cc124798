"""Repositories as git sees them: commits, trees, branches, tags and pull requests."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tests.hub.card import derived_info
from tests.hub.content import Source
from tests.hub.files import File, FileSpec

_FIRST_COMMIT = datetime(2025, 1, 1, 12, tzinfo=UTC)

Gating = Literal["auto", "manual", False]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit with its whole tree, by path, and what the Hub derives from it for the model object."""

    id: str
    parent: str | None
    title: str
    date: datetime
    files: Mapping[str, File]
    derived: Mapping[str, Any]

    def folders(self) -> Iterator[str]:
        """Every directory that holds something, parents first."""
        seen = set()
        for path in sorted(self.files):
            parts = path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folder not in seen:
                    seen.add(folder)
                    yield folder

    def folder_oid(self, folder: str) -> str:
        """An object id for a directory; stable, but not git's."""
        inside = [(p, f.oid) for p, f in sorted(self.files.items()) if p.startswith(f"{folder}/")]
        return hashlib.sha1(json.dumps(inside).encode(), usedforsecurity=False).hexdigest()


MakeFile = Callable[[str, FileSpec], File]


@dataclass(slots=True, kw_only=True)
class Repo:
    """A model repository; its methods change what is served from the next request on.

    ``info`` overrides fields of the API's model object (``safetensors``, ``gguf``, ``config`` ...) that are
    otherwise derived from the files.
    """

    id: str
    make_file: MakeFile
    private: bool = False
    gated: Gating = False
    disabled: bool = False
    pipeline_tag: str | None = None
    library_name: str | None = None
    tags: Collection[str] = ()
    downloads: int = 0
    likes: int = 0
    trending: int = 0
    created: datetime = _FIRST_COMMIT
    info: Mapping[str, Any] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tag_refs: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[int, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        """What ``main`` (or else the first branch there is) points to."""
        return self.commits[self.branches.get("main") or next(iter(self.branches.values()))]

    def commit(
        self,
        files: Mapping[str, Source | FileSpec],
        *,
        delete: Collection[str] = (),
        branch: str = "main",
        parent: str | None = None,
        title: str = "Update files",
    ) -> str:
        """Add and remove files on a branch (made if it is new, from ``parent`` or ``main``); the commit's id."""
        before = parent or self.branches.get(branch) or self.branches.get("main")
        commit = self._new_commit(files, delete, before, title)
        self.branches[branch] = commit.id
        return commit.id

    def pull_request(self, number: int, files: Mapping[str, Source | FileSpec], *, title: str = "Proposal") -> str:
        """Open or update ``refs/pr/<number>``; the commit's id."""
        before = self.pull_requests.get(number) or self.branches.get("main")
        commit = self._new_commit(files, (), before, title)
        self.pull_requests[number] = commit.id
        return commit.id

    def tag(self, name: str, revision: str = "main") -> None:
        """Make a tag, or move it."""
        self.tag_refs[name] = self._known(revision).id

    def branch(self, name: str, revision: str = "main") -> None:
        """Make a branch, or move it."""
        self.branches[name] = self._known(revision).id

    def delete_ref(self, name: str) -> None:
        """Delete the branch or tag of that name; commits stay reachable by hash."""
        self.branches.pop(name, None)
        self.tag_refs.pop(name, None)

    def forget(self, commit: str) -> None:
        """Delete a commit and every ref to it, as a history that was rewritten."""
        del self.commits[commit]
        for refs in (self.branches, self.tag_refs):
            for name in [name for name, target in refs.items() if target == commit]:
                del refs[name]
        for number in [number for number, target in self.pull_requests.items() if target == commit]:
            del self.pull_requests[number]

    def resolve(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, full ref, or full or short (at least 7) hash names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        target = self.branches.get(name) or self.tag_refs.get(name)
        if revision.startswith("refs/pr/") and revision[8:].isdigit():
            target = self.pull_requests.get(int(revision[8:]))
        if target is None and len(revision) >= 7:
            matching = [commit for commit in self.commits if commit.startswith(revision)]
            target = matching[0] if len(matching) == 1 else None
        return self.commits.get(target) if target else None

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        step: Commit | None = commit
        while step is not None:
            yield step
            step = self.commits.get(step.parent) if step.parent else None

    def _known(self, revision: str) -> Commit:
        commit = self.resolve(revision)
        if commit is None:
            raise KeyError(f"{self.id} has no revision {revision}")
        return commit

    def _new_commit(
        self,
        changed: Mapping[str, Source | FileSpec],
        deleted: Collection[str],
        before: str | None,
        title: str,
    ) -> Commit:
        files = dict(self.commits[before].files) if before else {}
        for path in deleted:
            del files[path]
        for path, given in changed.items():
            spec = given if isinstance(given, FileSpec) else FileSpec(source=given)
            files[path] = self.make_file(path, spec)
        listing = sorted((path, file.etag, file.size) for path, file in files.items())
        text = json.dumps([self.id, before, title, listing])
        commit = Commit(
            id=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
            parent=before,
            title=title,
            date=self.created + timedelta(hours=len(self.commits)),
            files=files,
            derived=derived_info(files),
        )
        self.commits[commit.id] = commit
        return commit
