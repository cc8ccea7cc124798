"""The emulator as a process of its own, so that what is measured shares no interpreter with it."""

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.hub.messages import OriginName
from tests.hub.rules import Rule

_CHECKOUT = Path(__file__).resolve().parents[2]
_EXIT_SECONDS = 60.0
# Making and hashing gigabytes of synthetic content is part of a request that adds a repository.
_REQUEST_SECONDS = 300.0


class HubProcess:
    """A context manager around ``python -m tests.hub``; ``arguments`` are its own, ``ca`` signed what ``--tls`` names.

    It ends with this process, however that ends: its standard input is a pipe from here.
    """

    def __init__(self, *arguments: str, ca: Path | None = None) -> None:
        self._command = [sys.executable, "-m", "tests.hub", "--until-eof", *arguments]
        self._trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        self._process: subprocess.Popen[bytes] | None = None
        self.addresses: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        """The HUB's address, for HF_ENDPOINT."""
        return self.addresses["hub"]

    def __enter__(self) -> Self:
        self._process = process = subprocess.Popen(
            self._command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the emulator ended with {process.returncode}")
        self.addresses = json.loads(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        try:
            process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def add_repo(self, repo_id: str, files: Mapping[str, Any], **fields: Any) -> str:
        """Make a repository of sources as `tests.hub.admin` describes them; its commit."""
        return str(self._call("POST", "/__repos", {"id": repo_id, "files": files, **fields})["commit"])

    def add_fault(self, rule: Rule) -> None:
        """Put a rule in force."""
        self._call("POST", "/__faults", rule.to_json())

    def clear_faults(self) -> None:
        """Lift every rule."""
        self._call("DELETE", "/__faults")

    def journal(self) -> list[dict[str, Any]]:
        """All exchanges so far."""
        exchanges: list[dict[str, Any]] = self._call("GET", "/__journal")
        return exchanges

    def clear_journal(self) -> None:
        """Forget them."""
        self._call("DELETE", "/__journal")

    def throttle(self, origin: OriginName, *, total: float | None = None, per_connection: float | None = None) -> None:
        """Limit an origin's bodies, in bytes a second; with no figures, lift its limits."""
        value = {"origin": origin, "total": total, "per_connection": per_connection}
        self._call("POST", "/__throttle", value)

    def get(self, path: str) -> Any:
        """What a path of the HUB answers, as JSON."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, value: Any = None) -> Any:
        body = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(f"{self.endpoint}{path}", data=body, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), self._trust)
        with direct.open(request, timeout=_REQUEST_SECONDS) as answer:
            return json.load(answer)
