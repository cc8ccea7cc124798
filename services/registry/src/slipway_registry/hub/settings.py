"""How the registry reaches the Hub: process configuration, never part of a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import httpx2

DEFAULT_ENDPOINT = "https://huggingface.co"

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as in huggingface_hub's constants.py
_FALSE = frozenset({"0", "OFF", "NO", "FALSE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Where the Hub is, whether it may be asked, and how patiently.

    Attributes:
        endpoint: scheme, host and port (a path is kept), without a slash at the end.
        offline: why no request may be made (`HF_HUB_OFFLINE=1`); empty when requests may be made.
        connect_timeout: seconds to a connection, TLS included: a host that does not answer is away.
        read_timeout: seconds without a byte of an answer; the Hub's slowest listings take some.
        call_timeout: seconds for one call, redirects and body included.
        tries: how often a call is made in all while it fails for a passing reason.
        first_wait: seconds before the first repetition; doubles with each, with full jitter.
        patience: longest wait, seconds, that is sat out; beyond it the caller is told when to come back.
        away_memory: seconds after a call that nobody answered in which others are made once only: whoever has the
            cache to fall back on does not wait again for what was just found out.
        concurrency: calls at the same time, each in a thread of its own.
        cache_ttl: seconds for which an answer is good, as the contract promises.
        cache_entries: so many answers are kept.
    """

    endpoint: str = DEFAULT_ENDPOINT
    offline: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    call_timeout: float = 60.0
    tries: int = 4
    first_wait: float = 0.5
    patience: float = 8.0
    away_memory: float = 15.0
    concurrency: int = 8
    cache_ttl: float = 60.0
    cache_entries: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", parse_endpoint(self.endpoint))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The settings that huggingface_hub would take from this environment, and our own defaults.

        Raises:
            ValueError: HF_ENDPOINT is not an address.
        """
        return cls(endpoint=environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, offline=offline_because(environment))


def offline_because(environment: Mapping[str, str]) -> str:
    """The variable that forbids requests, as `NAME=value`; empty when none does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if is_true(environment.get(name, "")):
            return f"{name}={environment[name]}"
    name = "HF_ALLOW_REMOTE_MODELS"
    return f"{name}={environment[name]}" if environment.get(name, "").upper() in _FALSE else ""


def is_true(value: str) -> bool:
    """Whether huggingface_hub takes a variable of this value for switched on."""
    return value.upper() in _TRUE


def parse_endpoint(text: str) -> str:
    """An endpoint in its normal form (lower-case host, no default port, no slash at the end).

    Raises:
        ValueError: it is not an http(s) address, or has credentials, a query or a fragment.
    """
    wanted = "give the Hub's endpoint as https://host[:port], without credentials, query and fragment"
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise ValueError(wanted) from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise ValueError(wanted)
    return str(url).rstrip("/")
