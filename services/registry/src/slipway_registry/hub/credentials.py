"""Tokens of the Hub: the service's own, and those that callers bring for one call. Neither is ever shown or stored."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from slipway_service.fault import Fault, Reason

_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
"""What may stand in an Authorization header; the Hub's own tokens are a few dozen letters and digits."""

MAX_TOKEN_FILE_BYTES = 4096


class Secret:
    """A text that does not show itself: not in a repr, a log line, a traceback's locals or a pickle."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text. For the Authorization header, and nothing else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be written anywhere")


class CredentialKind(StrEnum):
    """Whose token it is."""

    ANONYMOUS = "ANONYMOUS"
    SERVICE = "SERVICE"
    CALLER = "CALLER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Who asks the Hub.

    Attributes:
        kind: whose token it is; errors about it are told to the caller or to the operator accordingly.
        key: stands for the token in caches and comparisons. A keyed hash, of this process alone.
        secret: the token; None for ANONYMOUS. It takes no part in comparisons.
    """

    kind: CredentialKind
    key: str
    secret: Secret | None = field(default=None, compare=False)

    @property
    def token(self) -> str | None:
        """The token for an Authorization header; None for an anonymous request."""
        return self.secret.reveal() if self.secret else None


ANONYMOUS = Credential(kind=CredentialKind.ANONYMOUS, key="anonymous")


class Credentials:
    """Hands out credentials.

    Args:
        token: the service's token, from `HF_TOKEN`; it is before the file.
        token_file: a file with the service's token, read again whenever it changes, so that rotation needs no restart.
    """

    def __init__(self, token: str | None = None, token_file: Path | None = None) -> None:
        self._hash_key = secrets.token_bytes(32)
        self._fixed = self._credential(CredentialKind.SERVICE, token.strip()) if token and token.strip() else None
        self._file = token_file
        self._stamp: tuple[int, int, int] | None = None
        self._from_file = ANONYMOUS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], home: Path) -> "Credentials":
        """As huggingface_hub finds them: `HF_TOKEN`, its old name, what `HF_TOKEN_PATH` or `$HF_HOME/token` holds."""
        token = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
        named = environment.get("HF_TOKEN_PATH")
        return cls(token, Path(named).expanduser() if named else home / "token")

    def service(self) -> Credential:
        """The service's own credential as of now; ANONYMOUS when it has none.

        Raises:
            Fault: SERVICE_CREDENTIAL_INVALID: the file is there and cannot be read, or does not hold a token.
        """
        if self._fixed:
            return self._fixed
        if self._file is None:
            return ANONYMOUS
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._from_file, self._stamp = self._read(self._file), stamp
        except FileNotFoundError:
            self._from_file, self._stamp = ANONYMOUS, None
        except OSError as error:
            raise _unusable(f"The token file {self._file} cannot be read: {error.strerror}.") from error
        return self._from_file

    def of_call(self, token: str | None) -> Credential:
        """The credential for a call: that of its own token, else the service's.

        Raises:
            Fault: CREDENTIAL_INVALID: no token looks like that.
        """
        if not token:
            return self.service()
        if not _TOKEN.fullmatch(token):
            raise Fault(Reason.CREDENTIAL_INVALID, "The token sent with this call is not one: send it bare, as hf_….")
        return self._credential(CredentialKind.CALLER, token)

    def _read(self, file: Path) -> Credential:
        with open(file, "rb") as opened:
            content = opened.read(MAX_TOKEN_FILE_BYTES + 1)
        token = content.decode("ascii", "replace").strip()
        if not token:
            return ANONYMOUS
        if len(content) > MAX_TOKEN_FILE_BYTES or not _TOKEN.fullmatch(token):
            raise _unusable(f"The token file {file} does not hold a token.")
        return self._credential(CredentialKind.SERVICE, token)

    def _credential(self, kind: CredentialKind, token: str) -> Credential:
        digest = hashlib.blake2b(f"{kind}:{token}".encode(), key=self._hash_key, digest_size=16).hexdigest()
        return Credential(kind=kind, key=digest, secret=Secret(token))


def _unusable(text: str) -> Fault:
    return Fault(Reason.SERVICE_CREDENTIAL_INVALID, f"{text} The registry's operator must replace it.")
