"""The runner's options. Where the cache is, huggingface_hub's own variables say (HF_HOME, HF_HUB_CACHE)."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from slipway_service.config import ServiceSettings
from slipway_service.values import Directory, Duration, Listen, ListenAddress

from slipway_runner.models.release import ReleasePolicy


class RunnerSettings(ServiceSettings):
    """What the runner is configured with."""

    program: ClassVar[str] = "slipway-runner"

    listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 50061), description="Where gRPC is served; port 0 picks a free one."
    )
    metrics_listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 9102),
        description="Where Prometheus metrics are served, over HTTP; port 0 picks a free one.",
    )
    gateway_listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 8800),
        description="Where the OpenAI-compatible gateway is served, over HTTP; port 0 picks a free one.",
    )
    gateway_api_key_file: Directory | None = Field(
        default=None,
        description="File with the keys that the gateway's clients have to show, one on each line; read again when it "
        "changes. Without it everybody who reaches the gateway may use it.",
    )
    registry: str = Field(default="127.0.0.1:50051", description="The registry's address, HOST:PORT.")
    state_dir: Directory = Field(
        default=Path("~/.local/state/slipway/runner"),
        description="Local directory for journals, backends' logs, the chosen addresses and the admin socket.",
    )
    advertise: str = Field(
        default="", description="Host name under which others reach this host's gateway; none: the gateway's address."
    )
    model_roots: tuple[Directory, ...] = Field(
        default=(), description="Directories below which models may be loaded by path."
    )
    backends_dir: Directory = Field(
        default=Path("~/.cache/slipway/backends"),
        description="Where `make backends` has put backends; programs on PATH come first.",
    )
    commands: Directory | None = Field(
        default=None, description="TOML file that describes further servers, each a backend: docs/backends.md."
    )
    trust_remote_code: bool = Field(
        default=False, description="Allow models to run Python code of their own repository. It runs as this user."
    )
    keep_models: bool = Field(
        default=False, description="On shutdown, leave the models running for the next runner: for upgrades."
    )
    release: ReleasePolicy = Field(
        default=ReleasePolicy.IDLE,
        description="Whether a model is unloaded when the registry is told to delete its files by force: `idle`, as "
        "soon as no request is in flight; `always`, after the drain timeout at the latest; or `never`.",
    )
    loads_at_once: int = Field(default=2, ge=1, le=64, description="Loads that run at once; others wait.")
    drain_timeout: Duration = Field(
        default=30.0, ge=0, description="How long requests in flight may take before a model is stopped."
    )
    restart_budget: int = Field(
        default=5, ge=0, le=100_000, description="Restarts within the window after which a model is given up."
    )
    restart_window: Duration = Field(default=600.0, gt=0, description="The window of the restart budget.")
    restart_delay: Duration = Field(
        default=2.0, ge=0, description="How long after a backend's end it is started again; doubles with each restart."
    )
    restart_delay_limit: Duration = Field(default=60.0, ge=0, description="What that delay doubles up to.")
