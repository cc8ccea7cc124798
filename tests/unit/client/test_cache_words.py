"""What the cache's commands understand and say, without a service."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.common.v1.device_pb2 import DeviceMemory
from slipway.common.v1.variant_pb2 import Fit, RepoFile, Variant
from slipway.registry.v1.snapshot_pb2 import (
    Finding,
    FindingKind,
    Pin,
    PruneItem,
    PruneReason,
    Snapshot,
    SnapshotFile,
    SnapshotVariant,
)
from slipway.runner.v1.runner_pb2 import Device
from slipway_client.cli.cache import shown
from slipway_client.cli.cache.naming import label, matching, revision
from slipway_client.cli.fitting import places_named, places_of
from slipway_client.cli.quantities import parse_count, parse_duration, parse_size
from slipway_client.cli.steps import bytes_step

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> Timestamp:
    """A point in time so many seconds from NOW."""
    stamp = Timestamp()
    stamp.FromDatetime(NOW + timedelta(seconds=seconds))
    return stamp


def snapshot(commit: str, *refs: str) -> Snapshot:
    return Snapshot(repo_id="org/m", commit=commit.ljust(40, "0"), refs=refs)


def test_sizes_durations_and_counts() -> None:
    assert [parse_size(text) for text in ("5", "1.5GB", "64 MiB", "2TB")] == [5, 1_500_000_000, 64 << 20, 2 * 10**12]
    assert [parse_duration(text) for text in ("5", "250ms", "1.5h", "30d")] == [5.0, 0.25, 5400.0, 2_592_000.0]
    assert [parse_count(text) for text in ("12", "500M", "1.5B")] == [12, 500_000_000, 1_500_000_000]
    for parse in (parse_size, parse_duration, parse_count):
        for text in ("", "x", "-1", "1 parsec", "1e3"):
            with pytest.raises(ValueError, match="such as"):
                parse(text)


def test_a_revision_is_a_ref_or_the_beginning_of_one_commit() -> None:
    one, two, three = snapshot("abc12340", "main", "v1"), snapshot("abc12345"), snapshot("def56789", "abc1234")
    found = [one, two, three]
    assert matching(found, "main") == [one]
    assert matching(found, "def5678") == [three]
    assert matching(found, "abc1234") == [three], "a ref comes first"
    assert matching([one, two], "abc1234") == [], "it begins two commits"
    assert matching(found, "def5") == [], "too short to be meant"
    assert (label(one), revision(one), revision(two)) == ("org/m@abc1234", "main", "abc1234")


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Snapshot(complete=True), "everything"),
        (Snapshot(complete=True, damaged_count=2), "2 files damaged, everything"),
        (Snapshot(), "no weights"),
        (
            Snapshot(
                variants=[
                    SnapshotVariant(name="Q4", complete=True, present_bytes=1),
                    SnapshotVariant(name="Q8", present_bytes=1),
                    SnapshotVariant(name="F16"),
                ]
            ),
            "Q4, part of Q8",
        ),
    ],
)
def test_how_much_is_there(made: Snapshot, text: str) -> None:
    assert shown.contents(made).plain == text


def test_times() -> None:
    assert [shown.ago(at(-seconds), NOW) for seconds in (0, 5, 3600, 90_000)] == [
        "just now",
        "5 s ago",
        "1 h ago",
        "1 d ago",
    ]
    assert shown.until(Pin(), NOW) == "kept"
    assert shown.until(Pin(expire_time=at(7200)), NOW) == "in 2 h"
    assert shown.until(Pin(expire_time=at(-5)), NOW) == "in 0 s"


def test_pins() -> None:
    assert [shown.covers(Pin(paths=paths)) for paths in ([], ["a"], ["a", "b"])] == ["everything", "a", "2 files"]
    assert shown.holders([Pin(holder="b"), Pin(holder="a"), Pin(holder="b")]) == "a, b"
    assert [shown.list_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_files_findings_and_reasons() -> None:
    standings = (SnapshotFile(damaged=True), SnapshotFile(), SnapshotFile(present=True))
    assert [shown.standing(it).plain for it in standings] == ["damaged", "not here", "not verified yet"]
    assert shown.standing(SnapshotFile(present=True, verify_time=at(0))).plain == "verified"
    damaged = Finding(
        kind=FindingKind.FINDING_KIND_DAMAGED, path="f", actual_blob_id="a" * 64, expected_blob_id="b" * 64
    )
    assert shown.finding(damaged).plain == f"✗ f  damaged: its hash is {'a' * 12}…, it should be {'b' * 12}…"
    unreadable = Finding(kind=FindingKind.FINDING_KIND_UNREADABLE, path="f", detail="Input/output error")
    assert shown.finding(unreadable).plain == "✗ f  cannot be read: Input/output error"
    assert shown.finding(Finding(kind=FindingKind.FINDING_KIND_REPAIRED, path="f")).plain == "✓ f  fetched again"
    for kind in FindingKind.values()[1:]:
        assert "wrong" not in shown.finding(Finding(kind=kind)).plain
    for reason in PruneReason.values()[1:]:
        assert "newer registry" not in shown.why(PruneItem(reason=reason, idle=Duration(seconds=90)))


def test_devices_of_one_make_are_one_column() -> None:
    def device(ident: str, name: str, fault: str = "") -> Device:
        return Device(memory=DeviceMemory(device_id=ident), display_name=name, fault=fault)

    places = places_of([device("cpu", "EPYC"), device("1", "H200"), device("2", "H200"), device("3", "H200", "lost")])
    assert [place.title for place in places] == ["EPYC", "2 \N{MULTIPLICATION SIGN} H200"]
    fits = [Fit(device_id="1", headroom_bytes=-5), Fit(device_id="2", fits=True, headroom_bytes=7)]
    variant = Variant(name="v", fits=fits, files=[RepoFile()])
    assert [place.verdict(variant).plain for place in places] == ["", "✓ 7 B left"]
    assert [place.title for place in places_named(["24GB", "big=80GB"])] == ["24GB", "big"]


def test_a_rate_is_told_when_it_says_something() -> None:
    early = bytes_step("k", "hashing", "hashed", done_bytes=5, total_bytes=10, elapsed=0.5)
    later = bytes_step("k", "hashing", "hashed", done_bytes=5, total_bytes=10, elapsed=2.0)
    nothing = bytes_step("k", "hashing", "hashed", done_bytes=0, total_bytes=0, elapsed=2.0)
    assert (early.numbers, later.numbers) == ("5 / 10 B", "5 / 10 B · 2 B/s · 2.0 s left")
    assert (early.fraction, nothing.fraction) == (0.5, None)
