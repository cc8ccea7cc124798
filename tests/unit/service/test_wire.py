"""The bytes of a batch against what protobuf itself would write and read."""

from pathlib import Path
from types import ModuleType

import pytest
from slipway.common.v1 import watch_pb2
from slipway.registry.v1 import download_service_pb2, snapshot_service_pb2
from slipway.runner.v1 import model_pb2, model_service_pb2
from slipway_service import wire
from slipway_service.eventlog import Cursor
from slipway_service.watcher import Batch

EVENTS = [
    model_pb2.ModelEvent(model=model_pb2.Model(name="models/a", uid="x" * size))
    for size in (0, 1, 100, 127, 128, 20_000, 3_000_000)
]


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("revision", [None, 0, 1, 2**40])
def test_a_batch_is_what_protobuf_would_write(revision: int | None, reset: bool, synced: bool) -> None:
    cursor = None if revision is None else Cursor(epoch="6f1c", revision=revision)
    raw = wire.batch(
        Batch(events=[wire.event_field(event) for event in EVENTS], cursor=cursor, reset=reset, synced=synced)
    )
    assert model_service_pb2.WatchModelsResponse.FromString(raw) == model_service_pb2.WatchModelsResponse(
        events=EVENTS,
        cursor=None if cursor is None else watch_pb2.Cursor(epoch="6f1c", revision=cursor.revision),
        reset=reset,
        synced=synced,
    )


@pytest.mark.parametrize("module", [model_service_pb2, download_service_pb2, snapshot_service_pb2])
def test_every_watch_of_the_contract_has_this_shape(module: ModuleType) -> None:
    watches = [
        method.output_type
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name.startswith("Watch")
    ]
    assert watches
    for response in watches:
        wire.check_batch(response)


def test_another_shape_is_refused() -> None:
    with pytest.raises(TypeError, match="is no watch batch"):
        wire.check_batch(model_service_pb2.LoadModelResponse.DESCRIPTOR)


def test_the_contract_is_all_imported_here() -> None:
    """A watch in a new file of the contract has to be named above."""
    protos = Path(__file__).parents[3] / "protos" / "slipway"
    with_watch = {path.stem for path in protos.rglob("*.proto") if "rpc Watch" in path.read_text()}
    assert with_watch == {"model_service", "download_service", "snapshot_service"}
