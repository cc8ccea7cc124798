"""The programs that fetch the same files, as command lines."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One contender's work: where the Hub is, what to fetch, and an empty directory to fetch it to."""

    endpoint: str
    repo: str
    commit: str
    listing: Sequence[Sequence[Any]]
    directory: Path

    @property
    def urls(self) -> list[str]:
        return [f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{file[0]}" for file in self.listing]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A way to fetch a job.

    Attributes:
        goal: goals compare it: it has the first turns, and more than one.
    """

    name: str
    command: Callable[[Job], list[str]]
    variables: Mapping[str, str] = field(default_factory=dict)
    goal: bool = False
    over_tls: bool = False


def ours(job: Job, transport: str) -> list[str]:
    creation = json.dumps({"repo": job.repo, "commit": job.commit, "files": job.listing})
    module = "tests.bench.contenders.registry"
    return [sys.executable, "-m", module, str(job.directory), job.endpoint, transport, creation]


def preload(job: Job) -> list[str]:
    state = str(job.directory / "state")
    return [str(BIN / "slipway-registry"), "preload", "--all", "--state-dir", state, f"{job.repo}@{job.commit}"]


def hf(job: Job) -> list[str]:
    return [str(BIN / "hf"), "download", job.repo, "--revision", job.commit]


def curl(job: Job) -> list[str]:
    outputs = [part for number, url in enumerate(job.urls) for part in ("-o", str(job.directory / f"{number}"), url)]
    return ["curl", "-sSfL", "--no-progress-meter", "--parallel", *outputs]


def curl_hashed_and_synced(job: Job) -> list[str]:
    quoted = " ".join(f"'{part}'" for part in curl(job))
    return ["bash", "-ec", f"{quoted} && sha256sum {job.directory}/[0-9]* > /dev/null && sync {job.directory}/[0-9]*"]


def aria2c(job: Job) -> list[str]:
    targets = "\n".join(f"{url}\n  out={number}" for number, url in enumerate(job.urls))
    (job.directory / "urls").write_text(targets)
    options = ["-q", "-x8", "-s8", "-j8", "--min-split-size=4M", "--file-allocation=falloc"]
    return ["aria2c", *options, "-d", str(job.directory), "-i", str(job.directory / "urls")]


OURS_HTTP, OURS_XET, PRELOAD = "slipway, http", "slipway, xet", "slipway-registry preload, http"
HF_HTTP, HF_XET, CURL = "hf download, http", "hf download, xet", "curl"

# In the order of their turns: what is compared is neighbours in time.
CONTENDERS = (
    Contender(name=OURS_HTTP, command=lambda job: ours(job, "HTTP"), goal=True, over_tls=True),
    Contender(name=HF_HTTP, command=hf, variables={"HF_HUB_DISABLE_XET": "1"}, goal=True, over_tls=True),
    Contender(name=CURL, command=curl, goal=True, over_tls=True),
    Contender(name=OURS_XET, command=lambda job: ours(job, "XET")),
    Contender(name=PRELOAD, command=preload),
    Contender(name=HF_XET, command=hf),
    Contender(name="curl && sha256sum && sync", command=curl_hashed_and_synced),
    Contender(name="aria2c", command=aria2c),
)


def missing() -> Sequence[str]:
    """Lines about programs that are not on this machine."""
    how = {"curl": "apt-get install -y curl", "aria2c": "apt-get install -y aria2"}
    return [f"{name} is not there and left out; to have it: {line}" for name, line in how.items() if not _there(name)]


def present(contenders: Sequence[Contender]) -> Sequence[Contender]:
    """Those whose programs are on this machine."""
    return [each for each in contenders if each.name.split()[0] not in ("curl", "aria2c") or _there(each.name)]


def environment_for(job: Job, contender: Contender, authority: Path | None) -> dict[str, str]:
    """Its environment: nothing of this user's Hub settings; `authority` signed the Hub's certificate."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "SLIPWAY"))
    }
    own = {"HF_ENDPOINT": job.endpoint, "HF_HOME": str(job.directory), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    own |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1"}
    if authority:
        own |= {"SSL_CERT_FILE": str(authority), "CURL_CA_BUNDLE": str(authority)}
    return inherited | own | dict(contender.variables)


def _there(name: str) -> bool:
    return shutil.which(name.split()[0]) is not None
