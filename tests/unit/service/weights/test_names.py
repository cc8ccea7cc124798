"""Names from outside: what passes, what does not, and that nothing that passes leads out of a directory."""

import os.path
import pickle

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st
from slipway_service.weights.names import BlobId, CheckedName, Commit, FilePath, RepoId, Revision, XetHash

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    ["gpt2", "Qwen/Qwen2.5-7B-Instruct-GGUF", "a/b", "0x/_under_score_", "o" * 96 + "/" + "n" * 96, "a.b/c_d-e.f"],
)
def test_repo_ids(text: str) -> None:
    repo = RepoId.parse(text)
    assert repo == text
    assert "/".join(filter(None, (repo.owner, repo.name))) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "owner/name"),
        ("a/b/c", "owner/name"),
        ("https://huggingface.co/a/b", "without a host"),
        ("a/b@main", "letters, digits"),
        ("a/", "letters, digits"),
        ("/a", "letters, digits"),
        ("../a", "letters, digits"),
        ("a/..", "letters, digits"),
        ("a/b--c", "without '--'"),
        ("a/b..c", "'..'"),
        ("a/-b", "starting"),
        ("a/b.", "ending"),
        ("a/b\n", "letters, digits"),
        ("a/café", "letters, digits"),
        ("a/" + "n" * 97, "at most 96"),
        ("a/b.git", ".git"),
    ],
)
def test_no_repo_ids(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        RepoId.parse(text)


@given(st.text(alphabet="abZ09-_./ é", max_size=12))
def test_repo_ids_are_at_least_as_strict_as_huggingface_hubs(text: str) -> None:
    try:
        validate_repo_id(text)
    except HFValidationError:
        with pytest.raises(ValueError, match=r"owner/name|\.git"):
            RepoId(text)


@pytest.mark.parametrize("text", ["main", "v1.0", "refs/pr/3", "feature/x+y", "a@b", "2024-01-01", COMMIT, "0123456"])
def test_revisions(text: str) -> None:
    assert Revision.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "/a", "a/", "a//b", ".a", "a/.b"),
        *("a.lock", "a.lock/b", "a.", "@", "a@{0}", "-a", "a\x00b", "a\x7f", "\ud800", "x" * 256, "slipway/" + COMMIT),
    ],
)
def test_no_revisions(text: str) -> None:
    with pytest.raises(ValueError, match=r"give a|reserved"):
        Revision.parse(text)


def test_an_empty_revision_is_main() -> None:
    assert Revision.parse_or_default("") == "main"
    assert Revision.parse_or_default("v1") == "v1"


def test_only_names_become_refs() -> None:
    commit = Commit(COMMIT)
    assert Revision("main").names_ref(commit)
    assert Revision("deadbeef").names_ref(commit)  # a branch may be called so
    assert Revision(COMMIT[:3]).names_ref(commit)  # so may this, and the Hub takes no hash as short
    assert not Revision(COMMIT).names_ref(commit)
    assert not Revision(COMMIT[:7].upper()).names_ref(commit)


def test_commits_are_whole_and_lower_case() -> None:
    assert Commit(COMMIT.upper()) == COMMIT
    assert Revision(COMMIT.upper()).commit == COMMIT
    assert Revision("main").commit is None
    for text in (COMMIT[:39], COMMIT + "0", "g" * 40, COMMIT + "\n"):
        with pytest.raises(ValueError, match="40 hex"):
            Commit(text)


@pytest.mark.parametrize("text", ["a", "a/b/c.gguf", "...", "a..b", ".gitattributes", "q4+k m/ü.gguf", "n" * 255])
def test_file_paths(text: str) -> None:
    path = FilePath.parse(text)
    assert os.path.join(path.folder, path.name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\x00",
        "a\nb",
        "\udc80",
        "n" * 256,
        "ab/" * 700 + "c",
    ],
)
def test_no_file_paths(text: str) -> None:
    with pytest.raises(ValueError, match="give a path"):
        FilePath.parse(text)


@given(st.text(alphabet=st.sampled_from("./\\ab\x00é\ud800"), max_size=10))
def test_no_file_path_leads_out(text: str) -> None:
    try:
        path = FilePath(text)
    except ValueError:
        return
    inside = os.path.normpath(os.path.join("/root", path))
    assert inside == f"/root/{path}"


def test_blob_ids_tell_their_hash() -> None:
    assert BlobId("a" * 64).is_sha256
    assert not BlobId("a" * 40).is_sha256
    for text in ("A" * 40, "a" * 41, "", "../" + "a" * 61, "a" * 64 + "\n"):
        with pytest.raises(ValueError, match="40 or 64"):
            BlobId(text)
    with pytest.raises(ValueError, match="64"):
        XetHash("a" * 40)


@pytest.mark.parametrize("name", [RepoId("a/b"), Commit(COMMIT), FilePath("x/y")])
def test_names_stay_what_they_are(name: CheckedName) -> None:
    again = pickle.loads(pickle.dumps(name))
    assert again == name
    assert type(again) is type(name)


def test_a_hash_is_told_from_its_beginning() -> None:
    known = [Commit("a" * 40), Commit("abcdef" + "0" * 34), Commit("abcdef" + "0" * 20 + "1" * 14)]
    assert Revision("a" * 40).within(known) == known[0]
    assert Revision("AAAAAAA").within(known) == known[0]
    assert Revision("a" * 6).within(known) is None  # the Hub takes no hash as short
    assert Revision("abcdef0").within(known) is None  # two begin so
    assert Revision("f" * 40).within(known) is None
