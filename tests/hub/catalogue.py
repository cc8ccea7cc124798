"""All repositories of an emulated Hub, and who may see which."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, Unpack

from tests.hub.auth import User
from tests.hub.cdn import Cdn
from tests.hub.content import BlobStore, Source
from tests.hub.files import LFS_PATTERNS, File, FileSpec, file_of
from tests.hub.repos import Gating, Repo
from tests.hub.xet import XetStore


class RepoFields(TypedDict, total=False):
    """What can be said of a repository; see `Repo`."""

    private: bool
    gated: Gating
    disabled: bool
    pipeline_tag: str
    library_name: str
    tags: Collection[str]
    downloads: int
    likes: int
    trending: int
    created: datetime
    info: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Catalogue:
    """Repositories by id, what they were called before, and where their content lies."""

    blobs: BlobStore
    cdn: Cdn
    xet: XetStore
    repos: dict[str, Repo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        repo_id: str,
        files: Mapping[str, Source | FileSpec] | None = None,
        *,
        revision: str = "main",
        title: str = "initial commit",
        xet: bool = False,
        lfs_patterns: Collection[str] = LFS_PATTERNS,
        **fields: Unpack[RepoFields],
    ) -> Repo:
        """Make a repository with one commit.

        ``xet`` puts its LFS files into Xet storage.

        Raises:
            ValueError: there is one of that id; `Repo.commit` changes it.
        """
        if repo_id in self.repos:
            raise ValueError(f"{repo_id} exists")

        def make_file(path: str, spec: FileSpec) -> File:
            blob = self.blobs.put(spec.source)
            in_xet = xet if spec.xet is None else spec.xet
            file = file_of(path, spec, blob=blob, patterns=lfs_patterns, xet_hash=self.xet.add if in_xet else None)
            if file.lfs:
                self.cdn.add(blob)
            return file

        repo = Repo(id=repo_id, make_file=make_file, **fields)
        repo.commit(files or {}, branch=revision, title=title)
        self.repos[repo_id] = repo
        return repo

    def rename(self, old: str, new: str) -> None:
        """Give a repository another id; the old one redirects from now on."""
        repo = self.repos.pop(old)
        repo.id = new
        self.repos[new] = repo
        self.renamed[old] = new

    def remove(self, repo_id: str) -> None:
        """Delete a repository."""
        del self.repos[repo_id]

    def visible(self, repo_id: str, user: User | None) -> Repo | None:
        """A repository, unless it is private and not the user's to see."""
        repo = self.repos.get(repo_id)
        if repo is None or (repo.private and not (user and user.may_read(repo_id))):
            return None
        return repo
