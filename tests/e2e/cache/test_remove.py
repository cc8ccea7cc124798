"""What goes and what stays: rm, uninstall, prune, pin and unpin."""

import json
import re
import signal

from tests.e2e.cache.commands import (
    CHAT,
    COPY,
    MIB,
    another_commit,
    on_disk,
    pulled,
    refused,
    start,
    told,
    waits_for_a_release,
)
from tests.e2e.stack import WAIT_SECONDS, Stack, wait_for
from tests.hub.emulator import HubEmulator


def test_rm_frees_what_its_dry_run_said(stack: Stack) -> None:
    snapshot = pulled(stack)
    pulled(stack, COPY, "--variant", "Q4_K_M")
    (plan,) = stack.slipway("--json", "cache", "rm", CHAT, "--dry-run").lines
    before = on_disk(stack)
    said = stack.slipway("cache", "rm", CHAT, "--dry-run").out.splitlines()
    assert said[0] == f"would remove 3 files of {CHAT}@{snapshot.name[:7]}, and free 4.2 MB"
    assert said[1:] == ["  README.md", "  chat-Q4_K_M.gguf", "  chat-Q8_0.gguf"]
    assert on_disk(stack) == before

    removed = stack.slipway("cache", "rm", CHAT).out
    assert removed == f"✓ removed {CHAT}@{snapshot.name[:7]}: 4.2 MB freed\n"
    assert before - on_disk(stack) == int(plan["freedBytes"])
    assert not snapshot.exists()
    (other,) = stack.slipway("--json", "cache", "ls").lines
    assert (other["repoId"], other["variants"][0]["complete"]) == (COPY, True)


def test_rm_of_a_variant_and_of_all_snapshots(hub: HubEmulator, stack: Stack) -> None:
    first = pulled(stack)
    (done,) = stack.slipway("--json", "cache", "rm", CHAT, "--variant", "Q8_0").lines
    assert (done["paths"], int(done["freedBytes"])) == (["chat-Q8_0.gguf"], 4 * MIB)
    again = stack.slipway("cache", "rm", CHAT, "--variant", "Q8_0").out
    assert again == f"nothing of Q8_0 of {CHAT}@{first.name[:7]} was in the cache\n"
    assert "Q4_K_M, Q8_0" in refused(stack, 3, "VARIANT_NOT_FOUND", "cache", "rm", CHAT, "--variant", "Q1")

    second = pulled(stack, another_commit(hub))
    assert second != first
    assert len(stack.slipway("--json", "cache", "rm", CHAT, "--dry-run").lines) == 2
    assert len(stack.slipway("--json", "cache", "rm", CHAT, "--variant", "q4_k_m", "--dry-run").lines) == 2
    assert first.exists()
    done_all = stack.slipway("--json", "cache", "rm", CHAT).lines
    assert len(done_all) == 2
    assert len({it["snapshot"] for it in done_all}) == 2
    assert not first.exists()
    assert not second.exists()


def test_what_is_held_stays_until_its_holder_lets_go(hub: HubEmulator, stack: Stack) -> None:
    snapshot = pulled(stack)
    other = pulled(stack, another_commit(hub))
    label = f"{CHAT}@{snapshot.name[:7]}"
    (pin,) = stack.slipway("--json", "cache", "pin", label, "--holder", "ops", "--ttl", "1h").lines
    short = pin["pin"]["name"].removeprefix("pins/")[:8]
    held = told(stack, 5, "cache", "rm", CHAT)
    assert held.err.splitlines() == [
        f"SNAPSHOT_PINNED: {label} is held by ops; nothing was removed",
        f"  ops: {pin['pin']['name']} holds all of it",
        f"  `slipway cache rm {CHAT} --force` asks to let go, and waits for that",
        f"  `slipway cache unpin {short}` ends the pin of ops",
    ]
    assert other.exists(), "nothing goes when one of them cannot"
    late = told(stack, 5, "cache", "rm", label, "--force", "--timeout", "20s")  # of which 2 s are for the answer
    assert late.out == "waiting for ops\n"
    assert late.err.splitlines()[0].endswith(" is pinned by ops. Who was asked has not let go.")
    wait_for(lambda: not waits_for_a_release(stack), "the holder to be left alone")

    forced = start(stack, "cache", "rm", label, "--force")
    wait_for(lambda: waits_for_a_release(stack), "the holder to be asked")
    assert "asked to let go" in stack.slipway("cache", "pins").out
    assert snapshot.exists()
    stack.slipway("cache", "unpin", short)
    out, err = forced.communicate(timeout=WAIT_SECONDS)
    assert (forced.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"✓ removed {label}: 7 B freed, after ops had let go")
    assert not snapshot.exists()


def test_uninstall_asks_the_holder_and_removes_everything(hub: HubEmulator, stack: Stack) -> None:
    snapshot = pulled(stack)
    pulled(stack, another_commit(hub))
    stack.slipway("cache", "pin", f"{CHAT}@{snapshot.name}", "--holder", "gpu1", "--for", "a-model", "--ttl", "1h")
    going = start(stack, "--json", "uninstall", CHAT)
    wait_for(lambda: waits_for_a_release(stack), "the holder to be asked")
    stack.slipway("cache", "unpin", CHAT, "--holder", "gpu1")
    out, err = going.communicate(timeout=WAIT_SECONDS)
    assert (going.returncode, err) == (0, "")
    assert sorted(tuple(json.loads(line)["releasedHolders"]) for line in out.splitlines()) == [(), ("gpu1",)]
    assert on_disk(stack) == 0
    assert "nothing of" in refused(stack, 3, "SNAPSHOT_NOT_FOUND", "uninstall", CHAT)
    assert "is not a duration" in refused(stack, 2, "USAGE", "uninstall", CHAT, "--timeout", "soon")


def test_an_operators_keep_is_not_asked_for(stack: Stack) -> None:
    snapshot = pulled(stack)
    (pin,) = stack.slipway("--json", "cache", "pin", CHAT, "--holder", "ops").lines
    unpin = f"`slipway cache unpin {pin['pin']['name'][5:13]}` ends the pin of ops"
    said = f"{CHAT}@{snapshot.name[:7]} is held by ops; nothing was removed\n{unpin}"
    for arguments in (("cache", "rm", CHAT), ("cache", "rm", CHAT, "--force"), ("uninstall", CHAT)):
        assert refused(stack, 5, "SNAPSHOT_PINNED", *arguments) == said
    assert snapshot.exists()


def test_prune_does_what_its_dry_run_said(stack: Stack) -> None:
    pulled(stack)
    pulled(stack, COPY, "--include", "more.txt", "--include", "*Q4*")
    nothing = stack.slipway("cache", "prune").out
    assert nothing == "nothing to prune: the registry has no quota; say --quota SIZE or --unused-for DURATION\n"
    assert stack.slipway("cache", "prune", "--unused-for", "30d").out == "nothing to prune\n"
    stack.slipway("cache", "pin", COPY)
    (plan,) = stack.slipway("--json", "cache", "prune", "--quota", "1MB", "--dry-run").lines
    before = on_disk(stack)
    said = stack.slipway("cache", "prune", "--quota", "1MB", "--dry-run").out
    assert re.search(
        rf"^{re.escape(CHAT)} +[0-9a-f]{{7}} +4\.2 MB +over the quota; not used for \d.*$", said, re.MULTILINE
    )
    assert said.splitlines()[-1] == "would free 4.2 MB; 1 snapshot stays because it is held or being downloaded"
    assert on_disk(stack) == before
    gone = stack.slipway("cache", "prune", "--quota", "1MB").out
    assert gone.splitlines()[-1] == "✓ freed 4.2 MB; 1 snapshot stays because it is held or being downloaded"
    assert before - on_disk(stack) == int(plan["freedBytes"])
    assert stack.slipway("cache", "prune", "--unused-for", "0s").out == (
        "nothing to prune; 1 snapshot stays because it is held or being downloaded\n"
    )
    stack.slipway("cache", "unpin", COPY)
    assert "not used for " in stack.slipway("cache", "prune", "--unused-for", "0s").out
    assert "'much' is not a size such as" in refused(stack, 2, "USAGE", "cache", "prune", "--quota", "much")


def test_pins_of_a_variant_of_files_and_with_an_end(stack: Stack) -> None:
    pulled(stack, CHAT, "--variant", "Q8_0")
    (first,) = stack.slipway(
        "--json", "cache", "pin", CHAT, "--holder", "ops", "--variant", "Q8_0", "--ttl", "2h"
    ).lines
    assert {entry["path"] for entry in first["manifest"]} >= {"chat-Q8_0.gguf"}
    assert "expireTime" in first["pin"]
    (again,) = stack.slipway("--json", "cache", "pin", CHAT, "--holder", "ops", "--file", "*.md").lines
    assert (again["pin"]["name"], again["pin"]["paths"]) == (first["pin"]["name"], ["README.md"])
    assert "expireTime" not in again["pin"], "pinned again without an end"
    said = stack.slipway("cache", "pin", CHAT, "--ttl", "12h").out
    assert re.match(r"✓ \S+@\S+ holds \d+ files of org/chat-1\.5B-GGUF@[0-9a-f]{7} \(4\.2 MB\) until \d{4}-", said)
    assert re.search(r" +README\.md +org/", stack.slipway("cache", "pins", CHAT, "--holder", "ops").out)

    stack.slipway("cache", "unpin", CHAT)
    unpinned = refused(stack, 3, "PIN_NOT_FOUND", "cache", "unpin", CHAT)
    assert "does not hold org/chat-1.5B-GGUF; ops does" in unpinned
    assert f"`slipway cache unpin {first['pin']['name'][5:13]}` ends the pin of ops" in unpinned
    assert "ops no longer holds" in stack.slipway("cache", "unpin", first["pin"]["name"][5:13]).out
    refused(stack, 3, "PIN_NOT_FOUND", "cache", "unpin", first["pin"]["name"])
    assert stack.slipway("cache", "pins").out == "no pins; `slipway cache pin MODEL` makes one\n"

    lacking = refused(stack, 5, "SNAPSHOT_INCOMPLETE", "cache", "pin", CHAT, "--variant", "Q4_K_M")
    assert "lacks chat-Q4_K_M.gguf: download it first" in lacking
    refused(stack, 3, "VARIANT_NOT_FOUND", "cache", "pin", CHAT, "--variant", "Q1")
    refused(stack, 2, "USAGE", "cache", "pin", CHAT, "--ttl", "long")
    refused(stack, 2, "USAGE", "cache", "pin", CHAT, "--variant", "Q8_0", "--file", "*.md")
    assert "30 days" in refused(stack, 2, "INVALID_FIELDS", "cache", "pin", CHAT, "--ttl", "60d")


def test_ctrl_c_while_a_holder_is_asked(stack: Stack) -> None:
    snapshot = pulled(stack)
    stack.slipway("cache", "pin", CHAT, "--holder", "ops", "--ttl", "1h")
    forced = start(stack, "--json", "uninstall", CHAT)
    wait_for(lambda: waits_for_a_release(stack), "the holder to be asked")
    forced.send_signal(signal.SIGINT)
    _, err = forced.communicate(timeout=WAIT_SECONDS)
    assert forced.returncode == 130
    assert "what it waited for stays, and those who hold it are no longer asked" in err
    wait_for(lambda: not waits_for_a_release(stack), "the holder to be left alone")
    assert snapshot.exists()


def test_what_is_being_downloaded_is_not_removed(hub: HubEmulator, stack: Stack) -> None:
    pulled(stack, CHAT, "--variant", "Q4_K_M")
    hub.throttle.set("cdn", total=4 * 1024)  # a quarter of an hour
    try:
        (download,) = stack.slipway("--json", "pull", CHAT, "--all", "--detach").lines
        busy = refused(stack, 5, "SNAPSHOT_BUSY", "cache", "rm", CHAT)
        assert "is being downloaded or imported: cancel that first" in busy
        stack.slipway("cancel", download["name"].removeprefix("downloads/"), "--discard")
    finally:
        hub.throttle.clear()
    wait_for(lambda: stack.slipway("cache", "rm", CHAT, check=False).code == 0, "the download to be gone")
