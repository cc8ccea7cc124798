"""Repositories as the Hub's JSON shows them: model objects, trees, refs, commits."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from tests.hub.files import File
from tests.hub.repos import Commit, Repo

# Fields that a model object always has; the others come on demand (`expand`, `full`, `config`, `cardData`).
_SHORT = (
    "author",
    "createdAt",
    "downloads",
    "gated",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "tags",
    "trendingScore",
)
_FULL = (*_SHORT, "disabled", "lastModified", "sha", "siblings")


def _time(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def model(repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """Every field that there is of a repository at a commit."""
    library = repo.library_name or commit.derived.get("library_name")
    pipeline = repo.pipeline_tag or commit.derived.get("pipeline_tag")
    words = [*repo.tags, *commit.derived["tags"], library, pipeline]
    fields = {
        "_id": repo.id.encode().hex()[:24].ljust(24, "0"),
        "id": repo.id,
        **commit.derived,
        "author": repo.id.partition("/")[0] if "/" in repo.id else None,
        "baseModels": None,
        "createdAt": _time(repo.created),
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "downloadsAllTime": repo.downloads * 12,
        "gated": repo.gated,
        "lastModified": _time(commit.date),
        "library_name": library,
        "likes": repo.likes,
        "pipeline_tag": pipeline,
        "private": repo.private,
        "sha": commit.id,
        "siblings": [sibling(file, blobs=blobs) for _, file in sorted(commit.files.items())],
        "spaces": [],
        "tags": list(dict.fromkeys(word for word in words if word)),
        "trendingScore": repo.trending,
        "usedStorage": sum(file.size for file in commit.files.values()),
        **repo.info,
    }
    return {name: value for name, value in fields.items() if value is not None}


def select(fields: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """A model object with only the ``wanted`` fields, and those that name it."""
    return {name: value for name, value in fields.items() if name in wanted or name in ("_id", "id")}


def listed_fields(*, full: bool, config: bool, card: bool, expand: Collection[str]) -> Collection[str]:
    """Which fields a search result has."""
    if expand:
        return expand
    extra = ["config"] * config + ["cardData"] * card
    return [*(_FULL if full else _SHORT), *extra]


def sibling(file: File, *, blobs: bool) -> dict[str, Any]:
    """A file in a model object, with sizes and hashes if asked."""
    entry: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        entry |= {"size": file.size, "blobId": file.oid}
        if file.lfs:
            entry["lfs"] = {"sha256": file.etag, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def tree_file(repo: Repo, commit: Commit, file: File, *, expand: bool) -> dict[str, Any]:
    """A file in a tree listing."""
    entry: dict[str, Any] = {"type": "file", "path": file.path, "size": file.size, "oid": file.oid}
    if file.lfs:
        entry["lfs"] = {"oid": file.etag, "size": file.size, "pointerSize": len(file.pointer)}
    if file.xet_hash:
        entry["xetHash"] = file.xet_hash
    if expand:
        entry["lastCommit"] = _last_commit(repo, commit, file.path)
        entry["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return entry


def tree_folder(repo: Repo, commit: Commit, folder: str, *, expand: bool) -> dict[str, Any]:
    """A directory in a tree listing."""
    entry: dict[str, Any] = {"type": "directory", "path": folder, "size": 0, "oid": commit.folder_oid(folder)}
    if expand:
        entry["lastCommit"] = _last_commit(repo, commit, folder)
    return entry


def tree(repo: Repo, commit: Commit, folder: str, *, recursive: bool, expand: bool) -> list[dict[str, Any]] | None:
    """What a directory holds, directories first; None if there is no such directory."""
    prefix = f"{folder}/" if folder else ""
    folders = [path for path in commit.folders() if path.startswith(prefix)]
    files = [file for path, file in sorted(commit.files.items()) if path.startswith(prefix)]
    if folder and not folders and not files:
        return None
    if not recursive:
        folders = [path for path in folders if "/" not in path[len(prefix) :]]
        files = [file for file in files if "/" not in file.path[len(prefix) :]]
    return [tree_folder(repo, commit, path, expand=expand) for path in folders] + [
        tree_file(repo, commit, file, expand=expand) for file in files
    ]


def paths_info(repo: Repo, commit: Commit, paths: Iterable[str], *, expand: bool) -> list[dict[str, Any]]:
    """Files and directories by path; unknown paths are left out."""
    folders = set(commit.folders())
    found = []
    for path in paths:
        if path in commit.files:
            found.append(tree_file(repo, commit, commit.files[path], expand=expand))
        elif path in folders:
            found.append(tree_folder(repo, commit, path, expand=expand))
    return found


def refs(repo: Repo, *, pull_requests: bool) -> dict[str, Any]:
    """Branches, tags, conversions, and pull requests if asked."""

    def entries(named: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"{prefix}{n}", "targetCommit": c} for n, c in list(named.items())]

    listing: dict[str, Any] = {
        "branches": entries(repo.branches, "refs/heads/"),
        "converts": [],
        "tags": entries(repo.tag_refs, "refs/tags/"),
    }
    if pull_requests:
        named = {str(number): commit for number, commit in repo.pull_requests.items()}
        listing["pullRequests"] = entries(named, "refs/pr/")
    return listing


def commits(repo: Repo, commit: Commit, *, formatted: bool) -> list[dict[str, Any]]:
    """A commit and its ancestors, newest first."""
    listing = []
    for step in repo.history(commit):
        entry: dict[str, Any] = {
            "id": step.id,
            "title": step.title,
            "message": "",
            "authors": [{"user": repo.id.partition("/")[0]}],
            "date": _time(step.date),
        }
        if formatted:
            entry["formatted"] = {"title": step.title, "message": ""}
        listing.append(entry)
    return listing


def _last_commit(repo: Repo, commit: Commit, path: str) -> dict[str, Any]:
    """The newest commit that changed a path or something below it."""

    def state(step: Commit) -> list[tuple[str, str]]:
        return [(p, f.oid) for p, f in sorted(step.files.items()) if p == path or p.startswith(f"{path}/")]

    last = commit
    for step in repo.history(commit):
        if state(step) != state(commit):
            break
        last = step
    return {"id": last.id, "title": last.title, "date": _time(last.date)}
