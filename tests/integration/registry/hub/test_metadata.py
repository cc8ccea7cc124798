"""Revisions, listings, refs and access."""

import anyio
import pytest
from slipway_registry.hub.credentials import ANONYMOUS
from slipway_registry.hub.metadata import RefKind
from slipway_service.fault import Reason
from slipway_service.weights.names import Commit, FilePath, RepoId, Revision

from tests.hub.content import Random
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status
from tests.integration.registry.hub.client import HubClient, caller, fault_of

pytestmark = pytest.mark.anyio

REPO = RepoId("org/m")


async def test_every_kind_of_revision_resolves_to_a_commit(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo(REPO, {"a": "1"})
    first = repo.head.id
    repo.tag("v1.0")
    second = repo.commit({"a": "2"})
    branch = repo.commit({"a": "3"}, branch="feature/x+y")
    proposal = repo.pull_request(3, {"a": "4"})
    for revision, commit in {
        "main": second,
        "v1.0": first,
        "feature/x+y": branch,
        "refs/pr/3": proposal,
        first: first,
        first[:7]: first,
    }.items():
        found = await client.metadata.resolve(REPO, Revision(revision), ANONYMOUS)
        assert (found.commit, found.revision) == (commit, revision)


async def test_a_listing_has_sizes_and_hashes(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo(REPO, {"config.json": "{}", "onnx/m.onnx": Random(1000)}, xet=True)
    tree = await client.tree(REPO)
    assert tree.commit == repo.head.id
    config, model = tree.files
    theirs = repo.head.files
    assert (config.path, config.size_bytes, config.lfs, config.xet_hash) == ("config.json", 2, False, "")
    assert config.blob_id == config.git_oid == theirs["config.json"].oid
    assert (model.path, model.size_bytes, model.lfs) == ("onnx/m.onnx", 1000, True)
    assert model.blob_id == theirs["onnx/m.onnx"].blob.sha256
    assert model.git_oid == theirs["onnx/m.onnx"].oid
    assert model.xet_hash == theirs["onnx/m.onnx"].xet_hash
    assert tree.total_bytes == 1002


async def test_a_listing_of_many_pages(hub: HubEmulator, client: HubClient) -> None:
    hub.routes.page_size = 100
    hub.add_repo(REPO, {f"d{n % 7}/file+{n:04}.txt": "x" for n in range(1000)})
    tree = await client.tree(REPO)
    assert len({file.path for file in tree.files}) == 1000
    assert [file.path for file in tree.files] == sorted(file.path for file in tree.files)
    pages = hub.journal.requests(f"/tree/{tree.commit}")
    assert len(pages) > 10
    assert all("recursive=true" in page.target for page in pages)


async def test_a_page_that_fails_is_asked_for_again_and_the_others_are_not(hub: HubEmulator, client: HubClient) -> None:
    hub.routes.page_size = 10
    hub.add_repo(REPO, {f"{n:02}": "x" for n in range(30)})
    hub.faults.add(Status(503), "/tree/", skip=1, times=1)
    assert len((await client.tree(REPO)).files) == 30
    assert len(hub.journal.requests("/tree/")) == 4


async def test_a_moving_branch_does_not_mix_commits(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo(REPO, {"a": "1"})
    before = await client.tree(REPO)
    repo.commit({"b": "2"})
    again = await client.tree(REPO)  # within the cache's time
    assert again.commit == before.commit
    client.now += 61
    after = await client.tree(REPO)
    assert after.commit == repo.head.id
    assert [file.path for file in after.files] == ["a", "b"]
    assert [file.path for file in (await client.tree(REPO, before.commit)).files] == ["a"]


async def test_a_renamed_repository_tells_its_new_name(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo("org/old", {"a": "1"})
    hub.catalogue.rename("org/old", "neworg/new")
    tree = await client.tree("org/old")
    assert (tree.requested, tree.repo) == ("org/old", "neworg/new")
    content = await client.metadata.read(tree.requested, tree.commit, FilePath("a"), 10, ANONYMOUS)
    assert content == b"1"


async def test_refs(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo(REPO, {"a": "1"})
    for name in ("v2", "v1"):
        repo.tag(name)
    repo.branch("dev")
    for number in (10, 9):
        repo.pull_request(number, {"a": str(number)})
    refs = await client.metadata.refs(REPO, ANONYMOUS)
    assert [(ref.kind, ref.name) for ref in refs] == [
        (RefKind.BRANCH, "dev"),
        (RefKind.BRANCH, "main"),
        (RefKind.TAG, "v1"),
        (RefKind.TAG, "v2"),
        (RefKind.PULL_REQUEST, "refs/pr/9"),
        (RefKind.PULL_REQUEST, "refs/pr/10"),
    ]
    assert refs[0].commit == repo.head.id
    assert refs[4].commit == repo.pull_requests[9]


async def test_names_that_are_no_refs_are_left_out(hub: HubEmulator, client: HubClient) -> None:
    repo = hub.add_repo(REPO, {"a": "1"})
    for name in ("../../etc", "a..b", "slipway/" + "c" * 40, "bad name"):
        repo.branch(name)
    assert [ref.name for ref in await client.metadata.refs(REPO, ANONYMOUS)] == ["main"]


async def test_gated_shows_its_listing_to_all_and_its_files_to_some(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo(REPO, {"a": "1"}, gated="manual")
    hub.add_user("ann", "hf_ann", {REPO})
    hub.add_user("bob", "hf_bob")
    assert len((await client.tree(REPO)).files) == 1
    await client.metadata.check_access(REPO, caller("hf_ann"))
    for credential in (ANONYMOUS, caller("hf_bob")):
        fault = await fault_of(client.metadata.check_access(REPO, credential))
        assert fault.reason is Reason.REPO_GATED
        assert fault.link is not None
        assert fault.link.url == f"{hub.endpoint}/{REPO}"


async def test_private_repositories_are_seen_by_their_owners(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo(REPO, {"a": "1"}, private=True)
    hub.add_user("ann", "hf_ann", {REPO})
    hub.add_user("bob", "hf_bob")
    assert (await client.tree(REPO, credential=caller("hf_ann"))).files
    for credential in (ANONYMOUS, caller("hf_bob")):
        assert (await fault_of(client.tree(REPO, credential=credential))).reason is Reason.REPO_NOT_FOUND


async def test_many_who_ask_the_same_ask_once(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo(REPO, {"a": "1"})
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(client.tree, REPO)
    assert len(hub.journal.requests()) == 2  # the model and its tree


async def test_ranges_of_files(hub: HubEmulator, client: HubClient) -> None:
    hub.add_repo(REPO, {"m.gguf": b"0123456789", "a.txt": b"abcdef"})
    tree = await client.tree(REPO)

    async def read(path: str, offset: int, length: int) -> bytes:
        from slipway_registry.hub.errors import Subject

        return await client.gateway.call(
            ANONYMOUS,
            Subject(),
            lambda session: session.read(REPO, Commit(tree.commit), FilePath(path), offset, length),
        )

    assert await read("m.gguf", 3, 4) == b"3456"
    assert await read("m.gguf", 8, 100) == b"89"
    assert await read("m.gguf", 10, 5) == b""
    assert await read("a.txt", 2, 2) == b"cd"
