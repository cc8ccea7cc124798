"""The HUB origin: the API and the resolving of files, with the errors that clients tell apart."""

import re
import uuid
from dataclasses import dataclass
from urllib.parse import unquote

from tests.hub import describe, search
from tests.hub.auth import BadTokenError, User, Users
from tests.hub.cas import Cas
from tests.hub.gate import Gate, HubError, no_entry
from tests.hub.messages import Reply, Request, join, json_reply
from tests.hub.ratelimit import RateLimits
from tests.hub.repos import Commit, Repo
from tests.hub.resolve import Resolver

_VERBS = "revision|tree|refs|commits|paths-info|auth-check|xet-read-token"
_API = re.compile(rf"/api/models/([^/]+(?:/(?!(?:{_VERBS})(?:/|$))[^/]+)?)(?:/({_VERBS})(?:/(.*))?)?")
_RESOLVE = re.compile(r"/([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
_RESOLVE_CACHE = re.compile(r"/api/resolve-cache/models/([^/]+/[^/]+|[^/]+)/([0-9a-f]{40})/(.+)")


@dataclass(slots=True, kw_only=True)
class HubRoutes:
    """Answers requests on the HUB origin.

    ``page_size`` is of searches and plain trees, ``expanded_page_size`` of trees with ``expand``, as on the
    real Hub.
    """

    gate: Gate
    resolver: Resolver
    users: Users
    limits: RateLimits
    cas: Cas
    page_size: int = 1000
    expanded_page_size: int = 50

    def route(self, request: Request) -> Reply:
        """Answer a request on this origin."""
        headers, refusal = self.limits.count(request)
        try:
            reply = refusal or self._answer(request)
        except HubError as error:
            reply = error.reply()
        except ValueError as error:
            reply = HubError(400, None, str(error)).reply()
        return reply.with_headers({**headers, "X-Request-Id": f"Root=1-{uuid.uuid4()}"})

    def _answer(self, request: Request) -> Reply:
        try:
            user = self.users.who(request)
        except BadTokenError:
            raise HubError(401, None, "Invalid credentials in Authorization header") from None
        if request.path == "/api/models":
            return self._search(request, user)
        if request.path == "/api/whoami-v2":
            return self._whoami(user)
        if match := _RESOLVE_CACHE.fullmatch(request.path):
            return self.resolver.git_blob(request, user, *match.groups())
        if match := _API.fullmatch(request.path):
            return self._api(request, user, unquote(match[1]), match[2], match[3] or "")
        if match := _RESOLVE.fullmatch(request.path):
            repo_id, revision, path = match.groups()
            return self._moved(request, repo_id) or self.resolver.redirect(request, user, repo_id, revision, path)
        raise HubError(404, None, "Sorry, we can't find the page you are looking for.")

    def _search(self, request: Request, user: User | None) -> Reply:
        catalogue = self.gate.catalogue
        visible = [repo for name in list(catalogue.repos) if (repo := catalogue.visible(name, user))]
        found = search.find([describe.model(repo, repo.head) for repo in visible if repo.branches], request)
        limit = request.query.get("limit", [""])[-1]
        size = min(int(limit), self.page_size) if limit.isdigit() and int(limit) else self.page_size
        shown, headers = search.page(found, request, self.gate.hub_url(), size=size)
        wanted = describe.listed_fields(
            full=request.flag("full"),
            config=request.flag("config"),
            card=request.flag("cardData"),
            expand=_expanded(request),
        )
        return json_reply([describe.select(item, wanted) for item in shown], headers=headers)

    def _whoami(self, user: User | None) -> Reply:
        if user is None:
            raise HubError(401, None, "Invalid username or password.")
        token = {"displayName": "emulator", "role": "read"}
        return json_reply(
            {
                "type": "user",
                "id": user.name.encode().hex(),
                "name": user.name,
                "fullname": user.name.title(),
                "email": f"{user.name}@example.com",
                "emailVerified": True,
                "isPro": False,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": token},
            }
        )

    def _api(self, request: Request, user: User | None, repo_id: str, verb: str | None, rest: str) -> Reply:
        if moved := self._moved(request, repo_id):
            return moved
        repo = self.gate.repo(repo_id, user)
        if verb == "refs":
            return json_reply(describe.refs(repo, pull_requests=request.flag("include_prs")))
        if verb == "auth-check":
            self.gate.check_access(repo, user)
            return json_reply({})
        revision, _, path = rest.partition("/")
        commit = self.gate.commit(repo, unquote(revision) or "main")
        match verb:
            case "tree":
                return self._tree(request, repo, commit, unquote(path))
            case "commits":
                listing = describe.commits(repo, commit, formatted="formatted" in _expanded(request))
                shown, headers = search.page(listing, request, self.gate.hub_url(), size=self.page_size)
                return json_reply(shown, headers={**headers, "X-Total-Count": str(len(listing))})
            case "paths-info":
                form = request.form()
                expand = form.get("expand") in (True, ["true"], ["True"])
                return json_reply(describe.paths_info(repo, commit, form.get("paths", []), expand=expand))
            case "xet-read-token":
                self.gate.check_access(repo, user)
                return self._xet_token()
            case _:
                return self._model(request, repo, commit)

    def _model(self, request: Request, repo: Repo, commit: Commit) -> Reply:
        fields = describe.model(repo, commit, blobs=request.flag("blobs"))
        if wanted := _expanded(request):
            return json_reply(describe.select(fields, wanted))
        if request.flag("securityStatus"):
            fields["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
        return json_reply({**fields, "modelId": repo.id})

    def _tree(self, request: Request, repo: Repo, commit: Commit, path: str) -> Reply:
        expand = request.flag("expand")
        listing = describe.tree(repo, commit, path.strip("/"), recursive=request.flag("recursive"), expand=expand)
        if listing is None:
            raise no_entry(commit, path)
        size = self.expanded_page_size if expand else self.page_size
        shown, headers = search.page(listing, request, self.gate.hub_url(), size=size)
        return json_reply(shown, headers=headers)

    def _xet_token(self) -> Reply:
        token, expires = self.cas.issue_token()
        value = {"accessToken": token, "casUrl": self.cas.url(), "exp": expires}
        headers = {
            "X-Xet-Access-Token": token,
            "X-Xet-Cas-Url": self.cas.url(),
            "X-Xet-Token-Expiration": str(expires),
        }
        return json_reply(value, headers=headers)

    def _moved(self, request: Request, repo_id: str) -> Reply | None:
        new = self.gate.catalogue.renamed.get(repo_id)
        if new is None or repo_id in self.gate.catalogue.repos:
            return None
        return Reply(status=307, headers={"Location": request.target.replace(repo_id, new, 1)})


def _expanded(request: Request) -> list[str]:
    return join(request.query.get("expand")) + join(request.query.get("expand[]"))
