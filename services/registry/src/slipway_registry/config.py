"""The registry's options. Where Hub and cache are, huggingface_hub's own variables say (HF_HOME, HF_ENDPOINT …)."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from slipway_service.config import ServiceSettings
from slipway_service.values import Directory, Duration, Listen, ListenAddress, Size


class RegistrySettings(ServiceSettings):
    """What the registry is configured with."""

    program: ClassVar[str] = "slipway-registry"

    listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 50051), description="Where gRPC is served; port 0 picks a free one."
    )
    metrics_listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 9101),
        description="Where Prometheus metrics are served, over HTTP; port 0 picks a free one.",
    )
    state_dir: Directory = Field(
        default=Path("~/.local/state/slipway/registry"),
        description="Local directory for the database, the chosen addresses and the admin socket.",
    )
    offline: bool = Field(
        default=False, description="Make no request to the Hub; HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE do the same."
    )
    downloads: int = Field(default=4, ge=1, le=64, description="Downloads that run at once; others wait.")
    files: int = Field(default=8, ge=1, le=256, description="Files that are transferred at once, over all downloads.")
    connections_per_file: int = Field(default=8, ge=1, le=64, description="Connections that one file is fetched over.")
    disk_reserve: Size | None = Field(
        default=None,
        description="Space that downloads leave free on the cache's disk; none means 1 GiB, or 2 % of a small disk.",
    )
    retention: Duration = Field(default=7 * 86_400.0, ge=60, description="How long ended downloads are remembered.")
