"""What the Hub knows of one repository: its commit, its files, its refs, whether it may be read."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import anyio.to_thread
from huggingface_hub import ModelInfo
from slipway_service.fault import Fault, Reason
from slipway_service.weights.files import RepoFile
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from slipway_registry.hub.credentials import Credential
from slipway_registry.hub.errors import Subject, Unclear
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.listing import MAX_FILES, RepoTree, checked, files_of
from slipway_registry.hub.session import HubSession
from slipway_registry.hub.summary import RepoSummary, commit_of, summary_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A repository at the commit that a revision names.

    Attributes:
        requested, revision: as they were asked for.
        repo: the repository as the Hub spells it today.
        commit: the commit.
        summary: what a search shows.
        info: the Hub's whole model object, as huggingface_hub reads it; unchecked.
    """

    requested: RepoId
    repo: RepoId
    revision: Revision
    commit: Commit
    summary: RepoSummary
    info: ModelInfo


class RefKind(StrEnum):
    """What a ref is."""

    BRANCH = "BRANCH"
    TAG = "TAG"
    PULL_REQUEST = "PULL_REQUEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoRef:
    """A name for a commit; `name` is what to give as a revision (`main`, `v1.0`, `refs/pr/3`)."""

    kind: RefKind
    name: Revision
    commit: Commit


class HubMetadata:
    """Reads repositories through the gateway. Answers are shared for `HubSettings.cache_ttl` seconds, by credential."""

    def __init__(self, gateway: HubGateway) -> None:
        self._gateway = gateway

    async def resolve(self, repo: RepoId, revision: Revision, credential: Credential) -> Resolved:
        """The commit that a branch, tag, pull request or (beginning of a) hash names, once.

        Raises:
            Fault: REPO_NOT_FOUND, REVISION_NOT_FOUND, and the Hub's other reasons.
        """

        def work(session: HubSession) -> Resolved:
            return _resolved(repo, revision, session.api.model_info(repo, revision=revision))

        async def ask() -> Resolved:
            return await self._gateway.call(credential, Subject(repo=repo, revision=revision), work)

        return await self._gateway.shared(credential, ("model", repo, revision), ask)

    async def tree(self, repo: RepoId, revision: Revision, credential: Credential) -> RepoTree:
        """Every file of the commit that the revision names.

        Raises:
            Fault: as `resolve`, and HUB_ANSWER_UNSAFE.
        """
        found = await self.resolve(repo, revision, credential)

        async def ask() -> tuple[RepoFile, ...]:
            return await self._listing(found, credential)

        files = await self._gateway.shared(credential, ("tree", found.repo, found.commit), ask)
        return RepoTree(requested=repo, repo=found.repo, revision=revision, commit=found.commit, files=files)

    async def refs(self, repo: RepoId, credential: Credential) -> tuple[RepoRef, ...]:
        """Branches, then tags, then pull requests, each by name. Those whose names are none are left out.

        Raises:
            Fault: REPO_NOT_FOUND, and the Hub's other reasons.
        """

        def work(session: HubSession) -> tuple[RepoRef, ...]:
            found = session.api.list_repo_refs(repo, include_pull_requests=True)
            return (
                *_refs(RefKind.BRANCH, found.branches),
                *_refs(RefKind.TAG, found.tags),
                *_refs(RefKind.PULL_REQUEST, found.pull_requests or []),
            )

        async def ask() -> tuple[RepoRef, ...]:
            return await self._gateway.call(credential, Subject(repo=repo), work)

        return await self._gateway.shared(credential, ("refs", repo), ask)

    async def check_access(self, repo: RepoId, credential: Credential) -> None:
        """Whether files may be read: a gated repository shows everybody its listing, and its files only to some.

        Raises:
            Fault: REPO_GATED, REPO_NOT_FOUND, and the Hub's other reasons.
        """

        def work(session: HubSession) -> None:
            session.api.auth_check(repo)

        async def ask() -> None:
            await self._gateway.call(credential, Subject(repo=repo), work)

        await self._gateway.shared(credential, ("access", repo), ask)

    async def read(self, repo: RepoId, commit: Commit, path: FilePath, size: int, credential: Credential) -> bytes:
        """The first `size` bytes of a small file.

        Raises:
            Fault: ENTRY_NOT_FOUND, REPO_GATED, and the Hub's other reasons.
        """
        return await self._gateway.call(
            credential,
            Subject(repo=repo, revision=commit, path=path),
            lambda session: session.read(repo, commit, path, 0, size),
        )

    async def _listing(self, found: Resolved, credential: Credential) -> tuple[RepoFile, ...]:
        path = f"/api/models/{found.repo}/tree/{found.commit}"
        subject = Subject(repo=found.repo, revision=found.commit)
        files: list[RepoFile] = []
        cursor = ""
        while True:
            params = {"recursive": "true", "expand": "false"} | ({"cursor": cursor} if cursor else {})
            page = partial(_tree_page, path=path, params=params)
            found_here, following = await self._gateway.call(credential, subject, page)
            files += found_here
            if not following:
                # In a thread: a listing of 100,000 files takes a while.
                return await anyio.to_thread.run_sync(checked, files)
            if len(files) > MAX_FILES or following == cursor:
                raise Fault(Reason.HUB_ANSWER_UNSAFE, f"{found.repo} lists more than {MAX_FILES:,} files.")
            cursor = following


def _tree_page(session: HubSession, path: str, params: dict[str, str]) -> tuple[list[RepoFile], str]:
    entries, cursor = session.page(path, params)
    if not isinstance(entries, list):
        raise Unclear("a list of files that is not one")
    return files_of(entries), cursor


def _resolved(requested: RepoId, revision: Revision, info: ModelInfo) -> Resolved:
    commit = commit_of(info.sha)
    if commit is None or (revision.commit or commit) != commit:
        raise Unclear("a repository without a commit, or at another one than was asked for")
    summary = summary_of(info)
    return Resolved(
        requested=requested, repo=summary.repo, revision=revision, commit=commit, summary=summary, info=info
    )


def _refs(kind: RefKind, refs: Iterable[Any]) -> list[RepoRef]:
    found = []
    for ref in refs:
        try:
            name = Revision(ref.ref if kind is RefKind.PULL_REQUEST else ref.name)
            found.append(RepoRef(kind=kind, name=name, commit=Commit(ref.target_commit)))
        except ValueError:
            continue
    return sorted(found, key=_ref_order)


def _ref_order(ref: RepoRef) -> tuple[int, str]:
    number = ref.name.rpartition("/")[2] if ref.kind is RefKind.PULL_REQUEST else ""
    return (int(number) if number.isdecimal() else 0), ref.name
