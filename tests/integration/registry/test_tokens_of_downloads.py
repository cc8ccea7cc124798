"""Downloads on a caller's token or the registry's own, and over a restart."""

from pathlib import Path

import pytest
from anyio import to_thread
from slipway_registry.hub.credentials import Credentials
from slipway_registry.jobs.records import PauseReason, State
from slipway_registry.transfer.choice import Transport
from slipway_service.fault import Fault, Reason

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import HoldAfter
from tests.integration.registry.engines import PATIENT, engine_in, request

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SMALL = {"config.json": b"{}", "sub/dir/readme.txt": b"deep", "empty": b""}
BOTH = pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])


async def test_a_download_on_a_callers_token_waits_for_it_after_a_restart(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_user("ann", "hf_ann", access=["org/private"])
    repo = hub.add_repo("org/private", SMALL, private=True)
    caller = Credentials().of_call("hf_ann")
    hub.faults.add(hold := HoldAfter())
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo, credential=caller)
        await bench.told.state(created.id, State.RUNNING)
    hold.release()
    assert b"hf_ann" not in b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    async with engine_in(tmp_path, hub.endpoint) as bench:
        paused = await bench.scheduler.get(created.id)
        assert paused.pause_reason is PauseReason.CREDENTIAL_REQUIRED
        with pytest.raises(Fault) as caught:
            await bench.scheduler.resume(created.id)
        assert caught.value.reason is Reason.CREDENTIAL_REQUIRED
        joined, new = await bench.scheduler.create(request(repo, credential=caller))
        assert (joined.id, new) == (created.id, False)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
    assert hub.journal.leaks() == []


async def test_a_resume_that_is_refused_takes_no_token(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_user("ann", "hf_ann", access=["org/private"])
    repo = hub.add_repo("org/private", SMALL, private=True)
    credentials = Credentials()
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        hub.faults.add(hold := HoldAfter())
        created = await bench.create(repo, credential=credentials.of_call("hf_ann"))
        await bench.scheduler.pause(created.id)
        hold.release()
        with pytest.raises(Fault) as caught:
            await bench.scheduler.resume(created.id, credential=credentials.of_call("hf_stranger"), etag=created.etag)
        assert caught.value.reason is Reason.ETAG_MISMATCH
        await bench.scheduler.resume(created.id)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_a_pause_does_not_hide_that_the_callers_token_went_with_the_process(
    hub: HubEmulator, tmp_path: Path
) -> None:
    hub.add_user("ann", "hf_ann", access=["org/private"])
    repo = hub.add_repo("org/private", SMALL, private=True)
    caller = Credentials().of_call("hf_ann")
    hub.faults.add(hold := HoldAfter())
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo, credential=caller)
        await bench.scheduler.pause(created.id)
    hold.release()
    async with engine_in(tmp_path, hub.endpoint) as bench:
        with pytest.raises(Fault) as caught:
            await bench.scheduler.resume(created.id)
        assert caught.value.reason is Reason.CREDENTIAL_REQUIRED
        assert "not kept over the registry's restart: send it again" in caught.value.text
        await bench.scheduler.resume(created.id, credential=caller)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_what_the_registrys_own_token_is_enough_for_needs_no_callers_token(
    hub: HubEmulator, tmp_path: Path
) -> None:
    """Who joins without a token of their own has been let in with the registry's."""
    repo = hub.add_repo("org/m", SMALL)
    hub.add_user("ann", "hf_ann")
    hub.faults.add(hold := HoldAfter())
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo, credential=Credentials().of_call("hf_ann"))
        await bench.told.state(created.id, State.RUNNING)
    hold.release()
    async with engine_in(tmp_path, hub.endpoint) as bench:
        assert (await bench.scheduler.get(created.id)).pause_reason is PauseReason.CREDENTIAL_REQUIRED
        assert (await bench.create(repo)).id == created.id
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_a_download_that_others_wait_for_without_a_token_goes_on_after_a_restart(
    hub: HubEmulator, tmp_path: Path
) -> None:
    repo = hub.add_repo("org/m", SMALL)
    hub.add_user("ann", "hf_ann")
    hub.faults.add(hold := HoldAfter())
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo, credential=Credentials().of_call("hf_ann"))
        await bench.create(repo)
        await bench.told.state(created.id, State.RUNNING)
    hold.release()
    async with engine_in(tmp_path, hub.endpoint) as bench:
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_a_token_that_is_refused_is_not_held_against_others(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_user("ann", "hf_ann", access=["org/private"])
    repo = hub.add_repo("org/private", {"model.gguf": Random(MIB), "a": b"a"}, private=True)
    credentials = Credentials(token="hf_ann")
    rule = hub.faults.add(hold := HoldAfter(), "model.gguf", times=1)
    async with engine_in(tmp_path, hub.endpoint, credential=credentials.service(), **PATIENT) as bench:
        stranger = await bench.create(repo, paths=["model.gguf"], credential=credentials.of_call("hf_stranger"))
        await to_thread.run_sync(lambda: hub.journal.wait_for("model.gguf"))
        own = await bench.create(repo)
        await bench.told.state(own.id, State.RUNNING)
        hold.release()
        refused = await bench.told.end(stranger.id)
        assert refused.failure
        assert refused.failure.reason is Reason.CREDENTIAL_INVALID
        assert (await bench.told.end(own.id)).state is State.SUCCEEDED
        assert rule.struck == 1


async def test_a_gated_repository_says_where_access_is_asked_for(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/gated", {"model.gguf": Random(MIB)}, gated="manual")
    async with engine_in(tmp_path, hub.endpoint) as bench:
        failed = await bench.fetch(repo)
        assert failed.failure is not None
        assert (failed.state, failed.failure.reason) == (State.FAILED, Reason.REPO_GATED)
        assert failed.failure.help_url == f"{hub.endpoint}/org/gated"
        assert list(bench.paths(repo).snapshots.iterdir()) == []
