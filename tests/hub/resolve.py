"""Resolving a file: where its bytes are, with the headers that huggingface_hub names the blob by."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from tests.hub.auth import User
from tests.hub.gate import Gate
from tests.hub.messages import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Answers requests for files on the HUB origin."""

    gate: Gate
    cdn_url: Callable[[], str]

    def redirect(self, request: Request, user: User | None, repo_id: str, revision: str, path: str) -> Reply:
        """`/{id}/resolve/{revision}/{path}`: to the CDN for LFS, to the resolve cache for what git holds."""
        repo = self.gate.repo(repo_id, user)
        self.gate.check_access(repo, user)
        commit = self.gate.commit(repo, unquote(revision))
        file = self.gate.file(commit, unquote(path))
        origin = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
        if not file.lfs:
            query = f"{quote(request.path, safe='')}=&etag={quote(_quoted(file.etag), safe='')}"
            target = f"/api/resolve-cache/models/{repo.id}/{commit.id}/{quote(file.path)}?{query}"
            return Reply(status=307, headers={**origin, "Location": target})
        headers = {
            **origin,
            "Location": self.cdn_url() + self.gate.catalogue.cdn.link(file.blob, file.path.rpartition("/")[2]),
            "X-Linked-Etag": _quoted(file.etag),
            "X-Linked-Size": str(file.size),
        }
        if file.xet_hash:
            route = f"{self.gate.hub_url()}/api/models/{repo.id}/xet-read-token/{commit.id}"
            headers |= {"X-Xet-Hash": file.xet_hash, "Link": f'<{route}>; rel="xet-auth"'}
        return Reply(status=302, headers=headers)

    def git_blob(self, request: Request, user: User | None, repo_id: str, commit_id: str, path: str) -> Reply:
        """`/api/resolve-cache/models/{id}/{commit}/{path}`: the content of a file that git holds."""
        repo = self.gate.repo(repo_id, user)
        self.gate.check_access(repo, user)
        commit = self.gate.commit(repo, commit_id)
        file = self.gate.file(commit, unquote(path))
        return Reply(
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "ETag": _quoted(file.etag),
                "X-Repo-Commit": commit.id,
                "Accept-Ranges": "bytes",
            },
            body=(file.blob.slice(),) if file.blob.size else (),
            ranged=True,
        )


def _quoted(etag: str) -> str:
    return f'"{etag}"'
