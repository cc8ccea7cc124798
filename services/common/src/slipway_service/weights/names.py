"""Names that come from callers and from the Hub, checked before they reach a path or a URL.

Each is a `str` that cannot be built from anything but a valid text: `RepoId.parse("owner/name")` raises ValueError with
a sentence for the caller. Everything that takes one of these types may rely on the check.
"""

import re
from collections.abc import Iterable
from typing import Self

MAX_PATH_BYTES = 2048
"""Longest path within a repository. Linux takes 4,096 bytes for a whole path, the cache's part included."""

MAX_NAME_BYTES = 255
"""Longest file name on every file system that a cache lives on (`NAME_MAX`)."""

KEEP_PREFIX = "slipway/"
"""Refs below this name are the registry's own (`refs/slipway/<commit>` keeps `hf cache prune` off a snapshot)."""

DEFAULT_REVISION = "main"

SHORTEST_HASH = 7
"""So many digits of a commit the Hub takes for one; anything shorter is a name."""


class CheckedName(str):
    """A text that has passed its class's check."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102 -- see parse
        return super().__new__(cls, cls._checked(text))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The checked name.

        Raises:
            ValueError: it is not one; the message says what is expected.
        """
        return cls(text)

    @classmethod
    def _checked(cls, text: str) -> str:
        raise NotImplementedError


class RepoId(CheckedName):
    """A model repository: `owner/name`, or `name` alone for the Hub's oldest ones.

    The rules are huggingface_hub's (`utils/_validators.py`), so that the cache's folder name can be read back.
    """

    __slots__ = ()
    _PART = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")

    @classmethod
    def _checked(cls, text: str) -> str:
        parts = text.split("/")
        if "://" in text or len(parts) > 2:
            raise ValueError("give a model repository as owner/name, without a host, a file or a revision")
        if not all(cls._PART.fullmatch(part) for part in parts):
            raise ValueError(
                "give owner/name: each of at most 96 letters, digits, '-', '_' or '.', "
                "neither starting nor ending with '-' or '.', without '--' and '..'"
            )
        if text.endswith(".git"):
            raise ValueError("leave out the '.git' at the end")
        return text

    @property
    def owner(self) -> str:
        """The user or organisation; empty for a repository without one."""
        return self.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The part after the owner."""
        return self.rpartition("/")[2]


class Commit(CheckedName):
    """A whole commit hash, 40 lower-case hex digits."""

    __slots__ = ()
    _FORM = re.compile(r"[0-9a-f]{40}")

    @classmethod
    def _checked(cls, text: str) -> str:
        if not cls._FORM.fullmatch(text.lower()):
            raise ValueError("give a commit as 40 hex digits")
        return text.lower()


class Revision(CheckedName):
    """A branch, a tag, `refs/pr/N`, a commit or the beginning of one, under the rules of `git check-ref-format`."""

    __slots__ = ()
    _FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[/-]|[/.]$|(?:^|/)\.|\.lock(?:/|$)|^@$")

    @classmethod
    def _checked(cls, text: str) -> str:
        if not text or cls._FORBIDDEN.search(text) or not _encodable(text):
            raise ValueError("give a branch, a tag, refs/pr/N or a commit, as git allows them in names")
        if len(text.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"give a revision of at most {MAX_NAME_BYTES} bytes")
        if text.startswith(KEEP_PREFIX):
            raise ValueError(f"revisions that begin with {KEEP_PREFIX} are reserved for the cache's own refs")
        return text

    @classmethod
    def parse_or_default(cls, text: str) -> Self:
        """As `parse`, with `main` for an empty text."""
        return cls(text or DEFAULT_REVISION)

    @property
    def commit(self) -> Commit | None:
        """The commit, where the revision is a whole one."""
        try:
            return Commit(self)
        except ValueError:
            return None

    def within(self, commits: Iterable[Commit]) -> Commit | None:
        """The one of these commits that the revision is the hash of, or the beginning of its hash; None if not one."""
        if len(self) < SHORTEST_HASH:
            return None
        found = {commit for commit in commits if commit.startswith(self.lower())}
        return found.pop() if len(found) == 1 else None

    def names_ref(self, commit: Commit) -> bool:
        """Whether the revision, which resolved to `commit`, is a name of it and not (the beginning of) the hash itself.

        Only a name may become a file below `refs/` in the cache.
        """
        return len(self) < SHORTEST_HASH or not commit.startswith(self.lower())


class FilePath(CheckedName):
    """A path within a repository: relative, `/` between its parts, none of them `.` or `..`."""

    __slots__ = ()
    _FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")

    @classmethod
    def _checked(cls, text: str) -> str:
        if cls._FORBIDDEN.search(text) or not _encodable(text):
            raise ValueError("give a path without backslashes and control characters")
        parts = text.split("/")
        if any(part in {"", ".", ".."} for part in parts):
            raise ValueError("give a path relative to the repository, without empty parts, '.' and '..'")
        if len(text.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            raise ValueError(f"give a path of at most {MAX_PATH_BYTES} bytes, {MAX_NAME_BYTES} in each of its parts")
        return text

    @property
    def folder(self) -> str:
        """The path without its last part; empty at the top."""
        return self.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part."""
        return self.rpartition("/")[2]


class BlobId(CheckedName):
    """What a file's blob is called in the cache: the sha256 of an LFS or Xet file, else the git-sha1 of its content."""

    __slots__ = ()
    _FORM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

    @classmethod
    def _checked(cls, text: str) -> str:
        if not cls._FORM.fullmatch(text):
            raise ValueError("a blob is named by 40 or 64 lower-case hex digits")
        return text

    @property
    def is_sha256(self) -> bool:
        """Whether it is the sha256 of the content (else its git-sha1, over `blob <size>\\0` and the content)."""
        return len(self) == 64


class XetHash(CheckedName):
    """The content address of a file in Xet storage, 64 lower-case hex digits."""

    __slots__ = ()
    _FORM = re.compile(r"[0-9a-f]{64}")

    @classmethod
    def _checked(cls, text: str) -> str:
        if not cls._FORM.fullmatch(text):
            raise ValueError("a Xet hash is 64 lower-case hex digits")
        return text


def _encodable(text: str) -> bool:
    """Whether the text has bytes at all: lone surrogates, which JSON can carry, have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
