"""Quotas: kept before they are overdrawn, sat out when short, told when long."""

import anyio
import pytest
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_service.fault import Reason

from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio


async def test_a_short_limit_is_sat_out(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.faults.add(Status(429, headers={"Retry-After": "3"}), "/revision/", times=1)
    assert (await client.tree("org/m")).files
    assert client.slept == [3.0]


async def test_a_long_limit_is_told_at_once(hub: HubEmulator, client: HubClient) -> None:
    hub.faults.add(Status(429, headers={"RateLimit": '"api";r=0;t=200'}), "/api/", times=1)
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is Reason.HUB_RATE_LIMITED
    assert fault.retry_after == 200
    assert client.slept == []


async def test_while_a_limit_holds_nobody_asks(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.limits.set("api", quota=2, window=200)
    await client.tree("org/m")  # both requests of the quota
    for call in (
        client.tree("org/other"),
        client.search(),
        client.metadata.refs((await client.tree("org/m")).repo, ANONYMOUS),
    ):
        fault = await fault_of(call)
        assert fault.reason is Reason.HUB_RATE_LIMITED
        assert fault.retry_after
        assert 100 < fault.retry_after <= 200  # less what has passed since the window opened
    assert len(hub.journal.requests()) == 2
    hub.limits.clear()
    client.now += 200
    assert (await fault_of(client.tree("org/other"))).reason is Reason.REPO_NOT_FOUND


async def test_a_crowd_does_not_overdraw_the_quota(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.limits.set("api", quota=10, window=200)
    await client.tree("org/m")
    refused = []

    async def ask(number: int) -> None:
        refused.append((await fault_of(client.tree(f"org/none-{number}"))).reason)

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(ask, number)
    assert refused.count(Reason.HUB_RATE_LIMITED) == 22
    assert len(hub.journal.requests()) == 10
    assert all(request.status != 429 for request in hub.journal.requests())


async def test_quotas_are_the_credentials_own(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.add_user("ann", "hf_ann")
    hub.limits.set("api", quota=2, window=200)
    await client.tree("org/m")
    assert (await fault_of(client.search())).reason is Reason.HUB_RATE_LIMITED
    assert (await client.search(credential=caller("hf_ann"))).repos
