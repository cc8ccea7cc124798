"""The registry's options. Where Hub and cache are, huggingface_hub's own variables say (HF_HOME, HF_ENDPOINT …)."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from slipway_service.config import ServiceSettings
from slipway_service.values import Directory, Duration, Listen, ListenAddress, Size

from slipway_registry.transfer.choice import Transport


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
    downloads: int = Field(default=4, ge=1, le=64, description="Downloads that run at once, at most 64; others wait.")
    files: int = Field(
        default=8,
        ge=1,
        le=256,
        description="Files transferred at once, over all downloads, at most 256; each takes up to 20 MiB of memory "
        "over http.",
    )
    connections_per_file: int = Field(
        default=8, ge=1, le=64, description="Connections that one file is fetched over, at most 64."
    )
    transport: Transport = Field(
        default=Transport.AUTO,
        description="How files in Xet storage are fetched; AUTO is http up to 50 GB. HF_HUB_DISABLE_XET=1 means HTTP.",
    )
    group_shared: bool = Field(
        default=False,
        description="Create directories as 2775 and files as 664, for a cache that a group shares, whatever the umask.",
    )
    disk_reserve: Size | None = Field(
        default=None,
        description="Space that downloads leave free on the cache's disk; none means 1 GiB, or 2 % of a small disk.",
    )
    retention: Duration = Field(
        default=7 * 86_400.0, ge=60, description="How long ended downloads are remembered, at least 1m."
    )
    cache_quota: Size | None = Field(
        default=None, description="What pruning keeps the cache's files to; none means no quota."
    )
    partial_retention: Duration = Field(
        default=7 * 86_400.0,
        ge=60,
        description="How long partial files are kept that no download wants, at least 1m; whole files that no snapshot "
        "has make room for a quota after an hour.",
    )
    delete_grace: Duration | None = Field(
        default=None,
        ge=0,
        description="How long deleted files are kept for readers that have them open; "
        "none means 0, or 5m where the cache is on a network file system.",
    )
    scrub_interval: Duration = Field(
        default=30 * 86_400.0,
        ge=0,
        description="How often each file of the cache is hashed again in the background; 0 means never.",
    )
    scrub_rate: Size = Field(
        default=32 << 20,
        ge=1 << 16,
        description="How much the background check reads a second at most; not less than 64KiB.",
    )
    rescan_interval: Duration = Field(
        default=10.0,
        ge=0.05,
        description="How often to look what other programs have done to the cache, at least 50ms apart.",
    )
    export_roots: list[Directory] = Field(
        default=[], description="Directories below which snapshots may be exported to and imported from."
    )
