"""What the cache has, and whether it is right: ls, usage, verify, search and info."""

import re

from tests.e2e.cache.commands import CHAT, COPY, MIB, on_disk, pulled, refused, rot, told
from tests.e2e.stack import Stack
from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.faults import Status


def test_ls_shows_what_is_there_and_who_holds_it(hub: HubEmulator, stack: Stack) -> None:
    assert "the cache is empty; `slipway pull REPO` fills it" in stack.slipway("cache", "ls").out
    pulled(stack, CHAT, "--variant", "Q8_0")
    pulled(stack, COPY)
    hub.journal.clear()
    stack.slipway("cache", "pin", CHAT, "--holder", "ops")
    head, first, second, _, total = stack.slipway("cache", "ls").out.splitlines()
    assert head.split() == ["REPOSITORY", "REF", "COMMIT", "SIZE", "FREES", "USED", "HELD", "BY", "HAS"]
    assert re.fullmatch(r"org/chat-1\.5B-GGUF +main +[0-9a-f]{7} +4\.2 MB +0 B +.* +ops +Q8_0", first)
    assert re.fullmatch(r"org/copy +main +[0-9a-f]{7} +6\.3 MB +2\.1 MB +.* +everything", second)
    assert total.startswith("6.3 MB on disk in 2 snapshots, 4.2 MB pinned, ")

    closely = stack.slipway("cache", "ls", CHAT, "--files").out
    assert re.search(r"^Q4_K_M +0 B +2\.1 MB +not here$", closely, re.MULTILINE)
    assert re.search(r"^Q8_0 +4\.2 MB +4\.2 MB +complete, verified$", closely, re.MULTILINE)
    assert re.search(r"^chat-Q8_0\.gguf +4\.2 MB +verified$", closely, re.MULTILINE)
    assert re.search(r" +ops +everything +org/chat-1\.5B-GGUF@[0-9a-f]{7} +kept", closely)
    assert [it["repoId"] for it in stack.slipway("--json", "cache", "ls", "--sort", "size").lines] == [COPY, CHAT]
    (one,) = stack.slipway("--json", "cache", "ls", CHAT, "--files").lines
    assert {file["file"]["path"]: file["present"] for file in one["files"]}["chat-Q4_K_M.gguf"] is False
    assert hub.journal.requests() == [], "the cache is looked at without the Hub"


def test_a_model_is_named_by_ref_commit_or_the_beginning_of_one(stack: Stack) -> None:
    commit = pulled(stack).name
    for revision in ("main", commit, commit[:7]):
        (found,) = stack.slipway("--json", "cache", "ls", f"{CHAT}@{revision}").lines
        assert found["commit"] == commit
    assert stack.slipway("--json", "cache", "ls", found["name"]).lines == [found]
    assert f"it has {commit[:7]} (main)" in refused(stack, 3, "SNAPSHOT_NOT_FOUND", "cache", "ls", f"{CHAT}@v9")
    nothing = refused(stack, 3, "SNAPSHOT_NOT_FOUND", "cache", "rm", "Org/chat-1.5b-gguf")
    assert f"did you mean {CHAT}?" in nothing
    assert "repo_id: " in refused(stack, 2, "INVALID_FIELDS", "cache", "ls", "no repo")
    assert "is not REPO or REPO@REVISION" in refused(stack, 2, "USAGE", "cache", "ls", f"{CHAT}@")
    assert "`slipway pull org/nothing` downloads it" in refused(
        stack, 3, "SNAPSHOT_NOT_FOUND", "cache", "pin", "org/nothing"
    )


def test_usage_counts_inodes(stack: Stack) -> None:
    pulled(stack)
    pulled(stack, COPY)
    (answer,) = stack.slipway("--json", "cache", "usage").lines
    assert int(answer["usage"]["snapshotBytes"]) == on_disk(stack)
    takes = {repo["repoId"]: int(repo["snapshotBytes"]) for repo in answer["repos"]}
    frees = {repo["repoId"]: int(repo["exclusiveBytes"]) for repo in answer["repos"]}
    assert takes[COPY] == on_disk(stack)
    assert (frees[CHAT], frees[COPY]) == (0, len("more"))
    shown = stack.slipway("cache", "usage").out
    assert re.search(r"^org/copy +1 +6\.3 MB +4 B ", shown, re.MULTILINE)
    assert re.search(r"^shared +6\.3 MB +of it are in several repositories", shown, re.MULTILINE)


def test_verify_finds_damage_and_repairs_it(stack: Stack) -> None:
    snapshot = pulled(stack)
    file = snapshot / "chat-Q8_0.gguf"
    right = file.read_bytes()
    assert stack.slipway("cache", "verify", "--all").out.splitlines()[-1] == "✓ as it should be"

    rot(file, b"wrong" + right[5:])
    label = f"{CHAT}@{snapshot.name[:7]}"
    damaged = told(stack, 12, "cache", "verify", CHAT)
    assert "✗ chat-Q8_0.gguf  damaged: its hash is " in damaged.out
    assert damaged.err.splitlines() == [
        f"HASH_MISMATCH: 1 file of {label} damaged or missing",
        f"  `slipway cache verify {label} --repair` fetches again what is wrong",
    ]
    stack.slipway("cache", "verify", CHAT, "--variant", "Q4_K_M")
    assert re.search(r"^chat-Q8_0\.gguf .* damaged$", stack.slipway("cache", "ls", CHAT, "--files").out, re.MULTILINE)
    assert "  1 file damaged, " in stack.slipway("cache", "ls").out

    *_, last = stack.slipway("--json", "cache", "verify", CHAT, "--repair").lines
    assert last["openFindings"] == 0
    assert [(it["kind"], it["path"]) for it in last["findings"]] == [("FINDING_KIND_REPAIRED", "chat-Q8_0.gguf")]
    assert file.read_bytes() == right
    file.resolve().write_bytes(right[:-1])
    repaired = stack.slipway("cache", "verify", CHAT, "--repair").out
    assert "✗ chat-Q8_0.gguf  missing: it has 4194303 bytes instead of 4194304" in repaired
    assert repaired.splitlines()[-1] == "✓ as it should be, now that 1 file came anew"
    assert file.read_bytes() == right


def test_verify_of_nothing_or_of_what_is_not_there(stack: Stack) -> None:
    assert "name what to verify, or give --all" in refused(stack, 2, "USAGE", "cache", "verify")
    assert "name what to verify, or give --all" in refused(stack, 2, "USAGE", "cache", "verify", CHAT, "--all")
    assert "the cache is empty" in stack.slipway("cache", "verify", "--all").out
    pulled(stack)
    unknown = refused(stack, 3, "VARIANT_NOT_FOUND", "cache", "verify", CHAT, "--variant", "Q1")
    assert "Q4_K_M, Q8_0" in unknown


def test_a_repair_that_the_hub_does_not_serve(hub: HubEmulator, stack: Stack) -> None:
    file = pulled(stack) / "chat-Q8_0.gguf"
    file.resolve().write_bytes(b"wrong")
    hub.faults.add(Status(404), path="resolve/.*chat-Q8_0")
    failed = told(stack, 12, "cache", "verify", CHAT, "--repair")
    assert failed.out.count("✗ chat-Q8_0.gguf") == 2, "what was found, and why it was not repaired"
    assert "--repair" not in failed.err


def test_search_and_info_tell_what_fits(hub: HubEmulator, stack: Stack) -> None:
    qwen = "Qwen/Qwen2.5-0.5B-Instruct-GGUF"
    files: dict[str, Source] = {
        "qwen-q4_k_m.gguf": Random(2 * MIB, 5),
        "qwen-f16-00001-of-00002.gguf": Random(MIB, 1),
        "qwen-f16-00002-of-00002.gguf": Random(MIB, 2),
        "qwen-q2_k-00001-of-00002.gguf": Random(MIB, 3),
    }
    hub.add_repo(qwen, files)
    found = stack.slipway("search", "qwen gguf", "--gguf").out
    assert re.search(rf"^{re.escape(qwen)} ", found, re.MULTILINE)
    info = stack.slipway("info", qwen, "--device", "small=1MB", "--device", "80GB").out
    assert re.search(r"^VARIANT +FORMAT +BITS +SIZE +MEMORY +SMALL +80GB$", info, re.MULTILINE)
    assert re.search(r"^Q4_K_M +gguf .* 2\.1 MB .* ✗ \S+ MB short +✓ 79\.\d GB left +default", info, re.MULTILINE)
    assert re.search(r"^F16 +gguf .* 2\.1 MB ", info, re.MULTILINE)
    assert "not whole: the repository lacks qwen-q2_k-00002-of-00002.gguf" in info
    assert "GB left" in stack.slipway("info", qwen).out, "the runner's own devices"
    pulled(stack, qwen, "--variant", "Q4_K_M")
    assert re.search(r"default, in the cache$", stack.slipway("info", qwen).out, re.MULTILINE)
