from datetime import UTC

import pytest

from tests.hub.content import Random, Sparse
from tests.hub.emulator import HubEmulator
from tests.hub.models.demo import demo_repos


def test_the_same_content_has_the_same_commits() -> None:
    ids = []
    for _ in range(2):
        hub = HubEmulator()
        repo = hub.add_repo("org/name", {"a.txt": "a", "w.bin": Random(5000, seed=1)})
        repo.commit({"a.txt": "b"})
        ids.append([(commit.id, commit.date.astimezone(UTC)) for commit in repo.commits.values()])
        hub.close()
    assert ids[0] == ids[1]


def test_the_demo_has_the_same_commits_each_time() -> None:
    heads = []
    for _ in range(2):
        hub = HubEmulator()
        demo_repos(hub)
        heads.append({name: repo.head.id for name, repo in hub.catalogue.repos.items()})
        hub.close()
    assert heads[0] == heads[1]
    assert len(heads[0]) == 10


def test_revisions() -> None:
    hub = HubEmulator()
    repo = hub.add_repo("org/name", {"a": "a"})
    first = repo.head.id
    second = repo.commit({"a": "b"})
    repo.tag("v1", first)
    names = {"main": second, "v1": first, "refs/tags/v1": first, second[:7]: second, first: first}
    found = {name: repo.resolve(name) for name in names}
    assert {name: commit and commit.id for name, commit in found.items()} == names
    assert repo.resolve(second[:6]) is None
    repo.forget(first)
    assert repo.resolve("v1") is None
    repo.delete_ref("main")
    assert repo.resolve("main") is None
    with pytest.raises(KeyError):
        repo.branch("dev", "absent")
    hub.close()


def test_an_id_is_taken_once() -> None:
    hub = HubEmulator()
    hub.add_repo("org/name")
    with pytest.raises(ValueError, match="exists"):
        hub.add_repo("org/name")
    hub.catalogue.remove("org/name")
    hub.add_repo("org/name")
    hub.close()


def test_synthetic_content_is_cheap_and_stable() -> None:
    hub = HubEmulator()
    blobs = hub.catalogue.blobs
    huge = blobs.put(Sparse(60 << 30, seed=1, sha256="0" * 64))
    assert huge.size == 60 << 30
    assert huge.path.stat().st_blocks * 512 < 16 << 20
    assert blobs.put(Random(1000, seed=1)).sha256 != blobs.put(Random(1000, seed=2)).sha256
    # What numpy's PCG64 gave when this was written: cached content and commits rest on it.
    assert blobs.put(Random(1000, seed=1)).sha256[:16] == "c48e32c8be88729c"
    hub.close()
