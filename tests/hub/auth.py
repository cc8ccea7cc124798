"""Who asks: users with tokens, and what each may read."""

from dataclasses import dataclass

from tests.hub.messages import Request


@dataclass(frozen=True, slots=True)
class User:
    """An account; ``access`` names the gated and private repositories it may read (its own are included)."""

    name: str
    token: str
    access: frozenset[str] = frozenset()

    def may_read(self, repo_id: str) -> bool:
        """Whether a gated or private repository is open to this user."""
        return repo_id in self.access or repo_id.partition("/")[0] == self.name


class BadTokenError(Exception):
    """An Authorization header that belongs to nobody."""


class Users:
    """All accounts, by token."""

    def __init__(self) -> None:
        self._by_token: dict[str, User] = {}

    def add(self, name: str, token: str, access: frozenset[str] = frozenset()) -> User:
        """Make an account, or give the one of that token another access list."""
        user = User(name, token, access)
        self._by_token[token] = user
        return user

    def revoke(self, token: str) -> None:
        """Make a token invalid from now on."""
        self._by_token.pop(token, None)

    def tokens(self) -> frozenset[str]:
        """Every valid token."""
        return frozenset(self._by_token)

    def who(self, request: Request) -> User | None:
        """The caller, None if anonymous.

        Raises:
            BadTokenError: there is a token that nobody has.
        """
        if "authorization" not in request.headers:
            return None
        user = self._by_token.get(request.bearer or "")
        if user is None:
            raise BadTokenError
        return user
