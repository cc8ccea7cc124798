"""What a caller may see, and the errors in the Hub's form for what it may not or is not there."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.hub.auth import User
from tests.hub.catalogue import Catalogue
from tests.hub.files import File
from tests.hub.messages import Reply, json_reply
from tests.hub.repos import Commit, Repo


class HubError(Exception):
    """An error in the Hub's form: status, X-Error-Code and X-Error-Message."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers
        super().__init__(message)

    def reply(self) -> Reply:
        """The error as it goes out."""
        code = {"X-Error-Code": self.code} if self.code else {}
        headers = {**code, "X-Error-Message": self.message, **self.headers}
        return json_reply({"error": self.message}, status=self.status, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Looks things up for a caller; every method raises `HubError` for what is not there or not open."""

    catalogue: Catalogue
    hub_url: Callable[[], str]

    def repo(self, repo_id: str, user: User | None) -> Repo:
        repo = self.catalogue.visible(repo_id, user)
        if repo is None:
            if user is None:
                raise HubError(401, "RepoNotFound", "Invalid username or password.")
            raise HubError(404, "RepoNotFound", "Repository not found")
        if repo.disabled:
            raise HubError(403, None, "Access to this resource is disabled.")
        return repo

    def check_access(self, repo: Repo, user: User | None) -> None:
        if not repo.gated or (user is not None and user.may_read(repo.id)):
            return
        where = f"Visit {self.hub_url()}/{repo.id} to ask for access."
        if user is None:
            message = f"Access to model {repo.id} is restricted. You must be authenticated to access it. Please log in."
            raise HubError(401, "GatedRepo", message)
        message = f"Access to model {repo.id} is restricted and you are not in the authorized list. {where}"
        raise HubError(403, "GatedRepo", message)

    def commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def file(self, commit: Commit, path: str) -> File:
        file = commit.files.get(path)
        if file is None:
            raise no_entry(commit, path)
        return file


def no_entry(commit: Commit, path: str) -> HubError:
    return HubError(404, "EntryNotFound", f"{path} does not exist on this revision", **{"X-Repo-Commit": commit.id})
