"""Runs unmodified clients against an emulator: functions in a fresh interpreter, commands, raw HTTP.

huggingface_hub reads HF_ENDPOINT and the like when it is imported, so every use of it is a process of its own.
"""

import http.client
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CHECKOUT = Path(__file__).resolve().parents[3]
_SECONDS = 90.0
_RUN = (
    "import importlib, json, sys\n"
    "module, name, arguments = sys.argv[1:]\n"
    "value = getattr(importlib.import_module(module), name)(*json.loads(arguments))\n"
    "print('\\n' + json.dumps(value))\n"
)


@dataclass(frozen=True, slots=True)
class Native:
    """huggingface_hub with a cache of its own, pointed at an endpoint."""

    endpoint: str
    home: Path

    @property
    def cache(self) -> Path:
        """Where it keeps repositories."""
        return self.home / "hub"

    def environment(self, **extra: str) -> dict[str, str]:
        """What its processes run with: nothing of the caller's Hugging Face settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {
            **inherited,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            **extra,
        }

    def call(self, function: Callable[..., Any], *arguments: Any, **extra: str) -> Any:
        """What a module's function returns (as JSON) in a process of its own; ``extra`` is environment."""
        command = [sys.executable, "-c", _RUN, function.__module__, function.__name__, json.dumps(arguments)]
        result = run(command, self.environment(**extra))
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    def hf(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """The ``hf`` command."""
        return run([str(Path(sys.executable).with_name("hf")), *arguments], self.environment(**extra))


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program from the checkout's root and capture what it says."""
    return subprocess.run(
        command, cwd=_CHECKOUT, env=dict(environment), capture_output=True, text=True, timeout=_SECONDS
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request that follows nothing and retries nothing.

    Raises:
        OSError, http.client.HTTPException: as the standard library has them.
    """
    parts = urlsplit(url)
    connection = (
        http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=tls)
        if tls
        else http.client.HTTPConnection(parts.netloc, timeout=timeout)
    )
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, headers=dict(headers or {}))
        response = connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())
    finally:
        connection.close()
