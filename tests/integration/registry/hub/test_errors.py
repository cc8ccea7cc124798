"""Each cause of failure, from the wire to its reason, whatever huggingface_hub calls it."""

from dataclasses import replace
from functools import partial

import huggingface_hub.errors
import huggingface_hub.hf_api
import huggingface_hub.utils._http
import pytest
from anyio import create_task_group, fail_after, to_thread
from slipway_registry.hub.credentials import ANONYMOUS, Credential, Credentials
from slipway_service.fault import Reason
from slipway_service.weights.names import FilePath, RepoId, Revision

from tests.hub.emulator import HubEmulator
from tests.hub.faults import ContentLength, Delay, Fault, Reset, Slow, StallAfter, Status, Truncate
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio

SHA1 = "1" * 40
SERVICE = Credentials("hf_nobody").service()
CALLER = caller("hf_nobody")


@pytest.mark.parametrize(
    ("repo", "revision", "credential", "reason"),
    [
        ("org/none", "main", ANONYMOUS, Reason.REPO_NOT_FOUND),
        ("org/none", "main", caller("hf_ann"), Reason.REPO_NOT_FOUND),
        ("org/m", "none", ANONYMOUS, Reason.REVISION_NOT_FOUND),
        ("org/m", "e" * 40, ANONYMOUS, Reason.REVISION_NOT_FOUND),
        ("org/disabled", "main", ANONYMOUS, Reason.REPO_DISABLED),
        ("org/m", "main", CALLER, Reason.CREDENTIAL_INVALID),
        ("org/m", "main", SERVICE, Reason.SERVICE_CREDENTIAL_INVALID),
    ],
)
async def test_what_the_hub_refuses(
    hub: HubEmulator, client: HubClient, repo: str, revision: str, credential: Credential, reason: Reason
) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.add_repo("org/disabled", {"a": "1"}, disabled=True)
    hub.add_user("ann", "hf_ann")
    fault = await fault_of(client.tree(repo, revision, credential))
    assert fault.reason is reason
    assert fault.facts["repo_id"] == repo
    assert client.slept == []  # nothing that waiting would mend


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (Status(500), Reason.HUB_ERROR),
        (Status(502, body="<html>bad gateway</html>"), Reason.HUB_ERROR),
        (Status(503), Reason.HUB_ERROR),
        (Status(504), Reason.HUB_ERROR),
        (Status(408), Reason.HUB_ERROR),
        (Status(429), Reason.HUB_RATE_LIMITED),
        (Reset(), Reason.HUB_UNREACHABLE),
        (Reset(after=5), Reason.HUB_UNREACHABLE),
        (Truncate(after=5), Reason.HUB_UNREACHABLE),
        (ContentLength(delta=7), Reason.HUB_UNREACHABLE),
        (Delay(None), Reason.HUB_UNREACHABLE),
        (StallAfter(after=5), Reason.HUB_UNREACHABLE),
    ],
    ids=repr,
)
async def test_what_may_pass_is_tried_again_and_then_told(hub: HubEmulator, what: Fault, reason: Reason) -> None:
    client = HubClient(hub.endpoint, tries=3)
    hub.add_repo("org/m", {"a": "1"})
    hub.faults.add(what, "/revision/")
    if isinstance(what, Delay | StallAfter):
        client.gateway.settings = replace(client.gateway.settings, read_timeout=0.3)
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is reason
    assert fault.retry_after is not None
    assert client.slept == [0.5, 1.0]
    assert len(hub.journal.requests()) == 3
    hub.faults.clear()
    client.gateway.settings = replace(client.gateway.settings, read_timeout=30.0)
    assert (await client.tree("org/m")).files


async def test_causes_do_not_rest_on_huggingface_hubs_exceptions(
    hub: HubEmulator, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have been renamed and moved before: here every one of them is another, and none is ever raised."""

    class Renamed(Exception):
        pass

    def raise_for_status(*_: object, **__: object) -> None:
        raise Renamed

    for name, value in vars(huggingface_hub.errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            monkeypatch.setattr(huggingface_hub.errors, name, Renamed)
    hub.add_repo("org/m", {"a": "1"}, gated="manual")
    hub.add_repo("org/off", {"a": "1"}, disabled=True)
    hub.add_repo("org/open", {"a": "1"})
    repo, commit = RepoId("org/m"), (await client.tree("org/open")).commit
    for module in (huggingface_hub.hf_api, huggingface_hub.utils._http):
        for name in [name for name in vars(module) if name.startswith("hf_raise_for_status")]:
            monkeypatch.setattr(module, name, raise_for_status)
    for call, reason in (
        (client.tree("org/none"), Reason.REPO_NOT_FOUND),
        (client.tree("org/m", "nope"), Reason.REVISION_NOT_FOUND),
        (client.metadata.check_access(repo, ANONYMOUS), Reason.REPO_GATED),
        (client.tree("org/m", credential=caller("hf_nobody")), Reason.CREDENTIAL_INVALID),
        (client.tree("org/off"), Reason.REPO_DISABLED),
        (client.metadata.read(RepoId("org/open"), commit, FilePath("none"), 1, ANONYMOUS), Reason.ENTRY_NOT_FOUND),
    ):
        assert (await fault_of(call)).reason is reason


@pytest.mark.parametrize("what", [Status(500), Reset(), Truncate(after=5), Delay(None)], ids=repr)
async def test_what_passes_is_not_noticed(hub: HubEmulator, what: Fault) -> None:
    client = HubClient(hub.endpoint, tries=20)  # a machine that stands still for a while takes some
    if isinstance(what, Delay):
        client.gateway.settings = replace(client.gateway.settings, read_timeout=0.3)
    hub.add_repo("org/m", {"a": "1"})
    hub.faults.add(what, "/api/", times=2)
    assert (await client.tree("org/m")).files


async def test_a_hub_that_is_away(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.down("hub")
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is Reason.HUB_UNREACHABLE
    assert "Connect" in fault.text
    hub.up("hub")
    assert (await client.tree("org/m")).files


async def test_a_hub_that_was_just_away_is_asked_once_until_it_answers(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    hub.down("hub")
    await fault_of(client.tree("org/m"))
    first = len(client.slept)
    await fault_of(client.tree("org/m"))
    assert (first, len(client.slept)) == (3, 3)
    client.now += 15
    await fault_of(client.tree("org/m"))
    assert len(client.slept) == 6
    hub.up("hub")
    await client.tree("org/m")
    hub.down("hub")
    await fault_of(client.tree("org/n"))
    assert len(client.slept) == 9


async def test_a_name_that_nobody_has() -> None:
    client = HubClient("http://hub.invalid", tries=1)
    assert (await fault_of(client.tree("org/m"))).reason is Reason.HUB_UNREACHABLE


async def test_an_answer_that_drips_is_given_up(hub: HubEmulator) -> None:
    client = HubClient(hub.endpoint, tries=1)
    hub.add_repo("org/m", {f"file-{n}": "x" for n in range(200)})
    hub.faults.add(Slow(rate=200), "/tree/")
    await client.metadata.resolve(RepoId("org/m"), Revision("main"), ANONYMOUS)  # that is not asked again
    client.gateway.settings = replace(client.gateway.settings, call_timeout=0.5)
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is Reason.HUB_UNREACHABLE
    assert "0.5 s" in fault.text
    # Its thread gives up too: the whole listing would take minutes.
    (page,) = await to_thread.run_sync(partial(hub.journal.wait_for, "/tree/", finished=True, timeout=20.0))
    assert page.sent < 5000


async def test_who_goes_away_does_not_wait_and_leaves_the_question_to_others(hub: HubEmulator) -> None:
    client = HubClient(hub.endpoint, read_timeout=600.0, call_timeout=600.0)
    hub.add_repo("org/m", {"a": "1"})
    hub.faults.add(Delay(None), "/revision/", times=1)
    with fail_after(60):
        async with create_task_group() as others, create_task_group() as first:
            first.start_soon(client.tree, "org/m")
            await to_thread.run_sync(hub.journal.wait_for, "/revision/")
            others.start_soon(client.tree, "org/m")
            first.cancel_scope.cancel()
    assert len(hub.journal.requests("/revision/")) == 2


@pytest.mark.parametrize(
    "body",
    [
        "<html>captive portal</html>",
        "[]",
        "{}",
        '{"id":"org/m"}',
        '{"id":"org/m","sha":"../x"}',
        '{"sha":"' + "c" * 40 + '"}',
    ],
)
async def test_an_answer_that_no_hub_gives(hub: HubEmulator, client: HubClient, body: str) -> None:
    hub.faults.add(Status(200, body=body), "/revision/")
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is Reason.HUB_ERROR
    assert "does not answer as a Hub does" in fault.text


async def test_another_commit_than_was_asked_for(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo("org/m", {"a": "1"})
    other = '{"id":"org/m","sha":"' + "c" * 40 + '"}'
    hub.faults.add(Status(200, body=other), "/revision/")
    assert (await fault_of(client.tree("org/m", repo.head.id))).reason is Reason.HUB_ERROR


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "a\\\\b", "a\\u0000b", "\\ud800"])
async def test_a_listing_that_must_not_reach_the_disk(hub: HubEmulator, client: HubClient, path: str) -> None:
    hub.add_repo("org/m", {"a": "1"})
    entry = f'[{{"type":"file","path":"{path}","size":1,"oid":"{SHA1}"}}]'
    hub.faults.add(Status(200, body=entry), "/tree/")
    assert (await fault_of(client.tree("org/m"))).reason is Reason.HUB_ANSWER_UNSAFE


async def test_a_listing_without_end(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/m", {"a": "1"})
    link = {"Link": f'<{hub.endpoint}/x?cursor=again>; rel="next"'}
    hub.faults.add(Status(200, body="[]", headers=link), "/tree/")
    assert (await fault_of(client.tree("org/m"))).reason is Reason.HUB_ANSWER_UNSAFE
    assert len(hub.journal.requests("/tree/")) == 2


async def test_an_endless_answer_is_cut_off(
    hub: HubEmulator, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_registry.hub.session.MAX_ANSWER_BYTES", 1000)
    hub.add_repo("org/m", {f"file-{n}": "x" for n in range(200)})
    fault = await fault_of(client.tree("org/m"))
    assert fault.reason is Reason.HUB_ERROR
    assert "more than 1,000 bytes" in fault.text
