"""The registry's client: search the Hub, download into the shared cache, and see to what is in it.

async with Registry.connect("127.0.0.1:50051") as registry:
    async for download in registry.pull("org/model", selection=select(variant="Q4_K_M")):
        print(download.progress.done_bytes)
"""

from slipway_client.catalog import CatalogCalls
from slipway_client.downloads import DownloadCalls
from slipway_client.snapshots import SnapshotCalls


class Registry(CatalogCalls, DownloadCalls, SnapshotCalls):
    """All calls of a registry. Every method raises SlipwayError; its docstring has the reasons to expect."""
