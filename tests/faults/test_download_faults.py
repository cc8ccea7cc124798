"""What goes wrong between the Hub and us, one thing at a time, over http and over Xet: state, reason, bytes."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from slipway_registry.hub.credentials import Credentials
from slipway_registry.hub.errors import DEFAULT_RETRY_AFTER
from slipway_registry.hub.rate import RateBudget
from slipway_registry.jobs.records import Download, State
from slipway_registry.transfer.choice import Transport
from slipway_service.fault import Reason

from tests.faults.patience import PATIENT, STALLING
from tests.hub.content import Random, Source
from tests.hub.emulator import HubEmulator
from tests.hub.faults import (
    ContentLength,
    ContentRange,
    Corrupt,
    Delay,
    ExpireLinks,
    Fault,
    Headers,
    HoldAfter,
    IgnoreRange,
    Reset,
    Slow,
    StallAfter,
    Status,
    Truncate,
)
from tests.hub.files import FileSpec
from tests.hub.messages import OriginName
from tests.hub.repos import Repo
from tests.integration.registry.engines import QUICK, Bench, engine_in, request

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SIZE = 24 * MIB

STRAIGHT = [State.QUEUED, State.RUNNING, State.VERIFYING, State.SUCCEEDED]


def model(hub: HubEmulator, **fields: Any) -> Repo:
    files: dict[str, Source | FileSpec] = {"config.json": b"{}", "model.safetensors": Random(SIZE)}
    return hub.add_repo("org/m", files, xet=True, **fields)


def assert_whole(bench: Bench, repo: Repo) -> None:
    for file in repo.head.files.values():
        digest = hashlib.sha256((bench.snapshot(repo) / file.path).read_bytes()).hexdigest()
        assert digest == file.blob.sha256


def assert_nothing_published(bench: Bench, repo: Repo, wrong: str = "model.safetensors") -> None:
    paths = bench.paths(repo)
    assert not paths.blob(repo.head.files[wrong].etag).exists()  # type: ignore[arg-type]
    assert not bench.snapshot(repo).exists()
    assert not paths.refs.exists()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault that strikes ``times`` requests to ``origin`` and leaves the download as it should."""

    fault: Fault
    times: int | None = 1
    path: str = ""
    origin: OriginName = "cdn"
    states: Sequence[State] = tuple(STRAIGHT)
    skip: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The engine's."""
        return STALLING if isinstance(self.fault, StallAfter | Delay) else PATIENT


# Others of the same kind stay in the short lane.
LONG_LANE = {"408", "500", "502", "504", "truncated, again and again", "a link that is over (401)"}


def cases(table: Mapping[str, Case]) -> list[Any]:
    """The rows of a table, some of them in the long lane only."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.full] if name in LONG_LANE else [])
        for name, case in table.items()
    ]


HEALED = {
    "reset before the answer": Case(fault=Reset()),
    "reset in the middle": Case(fault=Reset(after=MIB + 1)),
    "resets, again and again": Case(fault=Reset(after=MIB + 1), times=12),
    "truncated": Case(fault=Truncate(after=MIB + 1)),
    "truncated, again and again": Case(fault=Truncate(after=300_000), times=40),
    "truncated at once": Case(fault=Truncate(after=0), times=2),
    "stalled": Case(fault=StallAfter(after=MIB + 1)),
    "stalled before the answer": Case(fault=Delay(None)),
    "408": Case(fault=Status(408)),
    "429": Case(fault=Status(429, headers={"Retry-After": "0"})),
    "500": Case(fault=Status(500)),
    "502": Case(fault=Status(502)),
    "503": Case(fault=Status(503)),
    "504": Case(fault=Status(504)),
    "a link that is over (403)": Case(fault=ExpireLinks()),
    "a link that is over (401)": Case(fault=Status(401)),
    "links that are over from the start": Case(fault=ExpireLinks(), origin="hub", path="safetensors", times=2),
    "404 at the CDN": Case(fault=Status(404)),
    "416": Case(fault=Status(416)),
    "range ignored": Case(fault=IgnoreRange(), times=None),
    "range ignored by some": Case(fault=IgnoreRange(), times=2, skip=2),
    "another range": Case(fault=ContentRange(shift=MIB), times=2),
    "Content-Length too short": Case(fault=ContentLength(delta=-1000, cut=True), times=3),
    "Content-Length too long": Case(fault=ContentLength(delta=1000), times=1),
    "an encoding": Case(fault=Headers({"Content-Encoding": "gzip"})),
    "the Hub's 503 once": Case(fault=Status(503), origin="hub", path="resolve/"),
    "the Hub resets": Case(fault=Reset(), origin="hub", path="resolve/"),
}


@pytest.mark.parametrize("case", cases(HEALED))
async def test_http_heals_by_itself(hub: HubEmulator, tmp_path: Path, case: Case) -> None:
    repo = model(hub)
    rule = hub.faults.add(case.fault, case.path, origin=case.origin, times=case.times, skip=case.skip)
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.HTTP, **case.settings) as bench:
        done = await bench.fetch(repo)
        assert bench.told.states(done.id) == list(case.states)
        assert rule.struck
        assert_whole(bench, repo)
        figures = [progress.done_bytes for progress in bench.told.progress_of.get(done.id, [])]
        assert figures == sorted(figures)
    assert hub.journal.leaks() == []


XET_HEALED = {
    "reset before the answer": Case(fault=Reset()),
    "reset in the middle": Case(fault=Reset(after=MIB + 1)),
    "truncated": Case(fault=Truncate(after=MIB + 1)),
    "truncated, again and again": Case(fault=Truncate(after=MIB + 1), path="xorbs", times=12),
    "stalled": Case(fault=StallAfter(after=MIB + 1)),
    "stalled before the answer": Case(fault=Delay(None)),
    "408": Case(fault=Status(408)),
    "429": Case(fault=Status(429)),
    "500": Case(fault=Status(500)),
    "502": Case(fault=Status(502)),
    "503": Case(fault=Status(503)),
    "504": Case(fault=Status(504)),
    "a link that is over (401)": Case(fault=Status(401), path="xorbs"),
    "a link that is over (403)": Case(fault=Status(403), path="xorbs"),
    "no such xorb": Case(fault=Status(404), path="xorbs"),
    "range ignored": Case(fault=IgnoreRange(), path="xorbs", times=None),
    "Content-Length too short": Case(fault=ContentLength(delta=-1000, cut=True), path="xorbs", times=2),
    "Content-Length too long": Case(fault=ContentLength(delta=1000), path="xorbs"),
    "slow": Case(fault=Slow(rate=30e6), path="xorbs"),
    "no reconstruction": Case(fault=Status(503), path="reconstructions", times=2),
    "the token is not taken": Case(fault=Status(401), path="reconstructions", times=2),
    "no token": Case(fault=Status(503), path="xet-read-token", origin="hub"),
    "a token that is none": Case(fault=Status(200, body="[]"), path="xet-read-token", origin="hub"),
}


@pytest.mark.parametrize("case", cases(XET_HEALED))
async def test_xet_heals_by_itself(hub: HubEmulator, tmp_path: Path, case: Case) -> None:
    repo = model(hub)
    origin: OriginName = "cas" if case.origin == "cdn" else case.origin
    rule = hub.faults.add(case.fault, case.path, origin=origin, times=case.times)
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, **case.settings) as bench:
        done = await bench.fetch(repo)
        assert done.state is State.SUCCEEDED
        assert rule.struck
        assert_whole(bench, repo)
    assert hub.journal.leaks() == []


@pytest.mark.parametrize(("transport", "origin"), [(Transport.HTTP, "cdn"), (Transport.XET, "cas")])
async def test_one_wrong_byte_is_fetched_again(
    hub: HubEmulator, tmp_path: Path, transport: Transport, origin: OriginName
) -> None:
    repo = model(hub)
    hub.faults.add(Corrupt(offset=5 * MIB), "cdn|xorbs", origin=origin, times=1)
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert (done.state, done.mismatches) == (State.SUCCEEDED, 1)
        assert State.RUNNING in bench.told.states(done.id)[2:]
        assert_whole(bench, repo)


@pytest.mark.parametrize(("transport", "origin"), [(Transport.HTTP, "cdn"), (Transport.XET, "cas")])
async def test_bytes_that_stay_wrong_are_never_seen(
    hub: HubEmulator, tmp_path: Path, transport: Transport, origin: OriginName
) -> None:
    repo = model(hub)
    hub.faults.add(Corrupt(offset=5 * MIB), "cdn|xorbs", origin=origin)
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert (failed.state, reason(failed)) == (State.FAILED, Reason.HASH_MISMATCH)
        assert failed.failure
        assert failed.failure.facts["expected"] == repo.head.files["model.safetensors"].etag
        assert_nothing_published(bench, repo)


async def test_bytes_that_are_wrong_over_http_are_fetched_through_xet(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    hub.faults.add(Corrupt(offset=5 * MIB), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert (done.state, done.mismatches) == (State.SUCCEEDED, 1)
        assert_whole(bench, repo)


async def test_a_cdn_that_is_blocked_is_gone_round_through_xet(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    hub.faults.add(Status(403), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
        assert_whole(bench, repo)


def reason(download: Download) -> Reason | None:
    return download.failure.reason if download.failure else None


PERMANENT = {
    "gated": (Status(403, headers={"X-Error-Code": "GatedRepo"}), Reason.REPO_GATED),
    "revision deleted": (Status(404, headers={"X-Error-Code": "RevisionNotFound"}), Reason.REVISION_NOT_FOUND),
    "entry deleted": (Status(404, headers={"X-Error-Code": "EntryNotFound"}), Reason.ENTRY_NOT_FOUND),
    "repository deleted": (Status(404, headers={"X-Error-Code": "RepoNotFound"}), Reason.REPO_NOT_FOUND),
    "disabled": (
        Status(403, headers={"X-Error-Message": "Access to this resource is disabled."}),
        Reason.REPO_DISABLED,
    ),
    "a link to a file": (Status(302, headers={"Location": "file:///etc/passwd"}), Reason.HUB_ANSWER_UNSAFE),
}


@pytest.mark.parametrize(("transport", "path"), [(Transport.HTTP, "safetensors"), (Transport.XET, "xet-read-token")])
@pytest.mark.parametrize(("fault", "expected"), PERMANENT.values(), ids=PERMANENT.keys())
async def test_what_no_try_cures_fails_at_once(
    hub: HubEmulator, tmp_path: Path, fault: Fault, expected: Reason, transport: Transport, path: str
) -> None:
    repo = model(hub)
    rule = hub.faults.add(fault, path, origin="hub")
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert (failed.state, reason(failed)) == (State.FAILED, expected)
        assert bench.told.states(failed.id) == [State.QUEUED, State.RUNNING, State.FAILED]
        assert rule.struck <= 8  # one for each connection at most
        assert_nothing_published(bench, repo)


async def test_a_token_that_the_hub_does_not_know(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    credentials = Credentials(token="hf_unknown")
    async with engine_in(tmp_path, hub.endpoint, credential=credentials.service(), **PATIENT) as bench:
        assert reason(await bench.fetch(repo)) is Reason.SERVICE_CREDENTIAL_INVALID
        caller = credentials.of_call("hf_other")
        assert reason(await bench.fetch(repo, credential=caller)) is Reason.CREDENTIAL_INVALID


async def test_a_commit_that_is_deleted_meanwhile(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    commit = repo.head.id
    repo.commit({"config.json": b'{"v": 2}'})
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        wanted = request(repo, commit=commit)
        repo.forget(commit)
        created, _ = await bench.scheduler.create(wanted)
        assert reason(await bench.told.end(created.id)) is Reason.REVISION_NOT_FOUND


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
async def test_a_tag_that_moves_does_not_mix_commits(hub: HubEmulator, tmp_path: Path, transport: Transport) -> None:
    repo = model(hub)
    first = repo.head
    hold = HoldAfter(MIB)
    hub.faults.add(hold, "cdn/|xorbs/")
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        created = await bench.create(repo)
        await to_thread.run_sync(lambda: hub.journal.wait_for("cdn/|xorbs/"))
        repo.commit({"config.json": b'{"v": 2}', "model.safetensors": Random(SIZE, 2)})
        hold.release()
        assert (await bench.told.end(created.id)).commit == first.id
        for file in first.files.values():
            path = bench.snapshot(repo, first.id) / file.path
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.blob.sha256


@pytest.mark.parametrize(
    ("transport", "origin"), [(Transport.HTTP, "hub"), (Transport.HTTP, "cdn"), (Transport.XET, "hub")]
)
async def test_a_hub_that_goes_away_and_comes_back(
    hub: HubEmulator, tmp_path: Path, transport: Transport, origin: OriginName
) -> None:
    repo = model(hub)
    hub.down(origin)
    async with engine_in(tmp_path, hub.endpoint, transport=transport, **PATIENT) as bench:
        created = await bench.create(repo)
        for _ in range(5):  # more often than other faults are tried
            off = await bench.told.state(created.id, State.BACKING_OFF)
            count = len(bench.told.states(created.id))
            await bench.told.until(lambda count=count: len(bench.told.states(created.id)) > count)  # type: ignore[misc]
        assert (reason(off), off.tries) == (Reason.HUB_UNREACHABLE, 0)
        assert off.failure
        assert off.failure.retry_after is not None
        assert off.retry_time is not None
        assert off.away_since is not None
        hub.up(origin)
        done = await bench.told.end(created.id)
        assert (done.state, done.failure, done.away_since) == (State.SUCCEEDED, None, None)
        assert_whole(bench, repo)


async def test_an_xet_storage_that_goes_away_and_comes_back(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    hub.down("cas")
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, **PATIENT) as bench:
        created = await bench.create(repo)
        off = await bench.told.state(created.id, State.BACKING_OFF)
        assert reason(off) in (Reason.HUB_UNREACHABLE, Reason.TRANSFER_FAILED)
        hub.up("cas")
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert_whole(bench, repo)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_hub_that_stays_unwell_is_waited_for(hub: HubEmulator, tmp_path: Path, status: int) -> None:
    repo = model(hub)
    rule = hub.faults.add(Status(status), "resolve/")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        created = await bench.create(repo)
        off = await bench.told.state(created.id, State.BACKING_OFF)
        assert reason(off) is (Reason.HUB_RATE_LIMITED if status == 429 else Reason.HUB_ERROR)
        assert off.tries == 0
        hub.faults.remove(rule)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED


async def test_a_hub_that_stays_away_too_long(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    hub.down("hub")
    policy = replace(QUICK, away_patience=0.05)
    async with engine_in(tmp_path, hub.endpoint, policy=policy, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert (failed.state, reason(failed)) == (State.FAILED, Reason.HUB_UNREACHABLE)
        assert bench.told.states(failed.id)[-2:] == [State.BACKING_OFF, State.FAILED]
        assert failed.failure
        assert failed.failure.retry_after == DEFAULT_RETRY_AFTER


class SkippingClock:
    """A clock whose time passes as it does, and by leaps."""

    def __init__(self) -> None:
        self._leapt = 0.0
        self._leap = anyio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._leapt)

    def monotonic(self) -> float:
        return time.monotonic() + self._leapt

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while (left := until - self.monotonic()) > 0:
            with anyio.move_on_after(left):
                await self._leap.wait()

    def skip(self, seconds: float) -> None:
        self._leapt += seconds
        leap, self._leap = self._leap, anyio.Event()
        leap.set()


async def test_a_rate_limit_holds_everyone_back_until_its_time(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    limited = Status(429, headers={"RateLimit": '"resolvers";r=0;t=300', "Retry-After": "300"})
    rule = hub.faults.add(limited, "resolve/")
    clock = SkippingClock()
    quota = RateBudget(clock.monotonic)
    async with engine_in(tmp_path, hub.endpoint, clock=clock, quota=quota, **PATIENT) as bench:
        created = await bench.create(repo)
        off = await bench.told.state(created.id, State.BACKING_OFF)
        assert off.retry_time is not None
        assert off.failure
        assert off.failure.retry_after == 300.0
        assert created.create_time <= off.retry_time - timedelta(seconds=300) <= off.update_time
        asked = len(hub.journal.requests("resolve/"))
        other = await bench.create(repo, paths=["config.json"])
        waiting = await bench.told.state(other.id, State.QUEUED)
        await bench.told.until(lambda: bench.told.downloads(other.id)[-1].waiting_for == "HUB_RATE")
        assert waiting.state is State.QUEUED
        assert len(hub.journal.requests("resolve/")) == asked
        hub.faults.remove(rule)
        clock.skip(300)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert (await bench.told.end(other.id)).state is State.SUCCEEDED


async def test_a_transfer_that_never_works_fails_after_its_tries(hub: HubEmulator, tmp_path: Path) -> None:
    repo = model(hub)
    hub.faults.add(Truncate(after=0), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.HTTP, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert (failed.state, reason(failed)) == (State.FAILED, Reason.TRANSFER_FAILED)
        assert bench.told.states(failed.id).count(State.BACKING_OFF) == len(QUICK.job_delays)
        assert [item.tries for item in bench.told.downloads(failed.id) if item.state is State.BACKING_OFF] == [1, 2, 3]
        assert_nothing_published(bench, repo)
        hub.faults.clear()
        assert (await bench.fetch(repo)).state is State.SUCCEEDED


async def test_a_slow_link_is_no_fault(hub: HubEmulator, tmp_path: Path) -> None:
    repo = hub.add_repo("org/m", {"model.safetensors": Random(MIB)})
    hub.faults.add(Slow(rate=float(MIB)), origin="cdn")
    async with engine_in(tmp_path, hub.endpoint, **PATIENT) as bench:
        done = await bench.fetch(repo)
        assert bench.told.states(done.id) == STRAIGHT
        figures = {progress.done_bytes for progress in bench.told.progress_of[done.id]}
        assert len(figures) > 3  # it is seen to move


async def test_the_bearer_stays_with_the_hub(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_user("ann", "hf_ann", access=["org/m"])
    repo = model(hub, private=True)
    credential = Credentials(token="hf_ann").service()
    for number, transport in enumerate((Transport.HTTP, Transport.XET)):
        async with engine_in(
            tmp_path / str(number), hub.endpoint, credential=credential, transport=transport, **PATIENT
        ) as bench:
            assert (await bench.fetch(repo)).state is State.SUCCEEDED
    assert hub.journal.leaks() == []
    assert {e.headers.get("authorization") for e in hub.journal.requests(origin="hub")} == {"Bearer hf_ann"}


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.XET])
async def test_a_repository_that_is_renamed_meanwhile(hub: HubEmulator, tmp_path: Path, transport: Transport) -> None:
    hub.add_user("ann", "hf_ann", access=["org/m", "org/new"])
    repo = model(hub, private=True)
    credential = Credentials(token="hf_ann").service()
    async with engine_in(tmp_path, hub.endpoint, transport=transport, credential=credential, **PATIENT) as bench:
        wanted = request(repo)
        hub.catalogue.rename("org/m", "org/new")
        created, _ = await bench.scheduler.create(wanted)
        assert (await bench.told.end(created.id)).state is State.SUCCEEDED
        assert wanted.repo == "org/m"
        assert (bench.paths("org/m").refs / "main").read_text() == repo.head.id
    assert hub.journal.leaks() == []


async def test_a_token_of_the_storage_is_renewed_at_the_hub_only(hub: HubEmulator, tmp_path: Path) -> None:
    """hf-xet renews it by itself, and follows redirects: the bearer must not go along."""
    hub.add_user("ann", "hf_ann", access=["org/m"])
    repo = model(hub, private=True)
    over = {"casUrl": hub.cas_url, "accessToken": "xet_over", "exp": 1}
    hub.faults.add(Status(200, body=json.dumps(over)), "xet-read-token", origin="hub", times=1)
    elsewhere = Status(307, headers={"Location": hub.cdn_url + "/elsewhere"})
    hub.faults.add(elsewhere, "xet-read-token", origin="hub", skip=1, times=1)
    credential = Credentials(token="hf_ann").service()
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, credential=credential, **PATIENT) as bench:
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
    assert hub.journal.requests("elsewhere")
    assert hub.journal.leaks() == []


@pytest.mark.parametrize("url", ["file:///etc", "local:///etc", "ftp://host/x", "//host/x"])
async def test_a_storage_that_is_no_web_address_is_not_opened(hub: HubEmulator, tmp_path: Path, url: str) -> None:
    repo = model(hub)
    body = json.dumps({"casUrl": url, "accessToken": "x", "exp": 9_999_999_999})
    hub.faults.add(Status(200, body=body), "xet-read-token", origin="hub")
    async with engine_in(tmp_path, hub.endpoint, transport=Transport.XET, **PATIENT) as bench:
        failed = await bench.fetch(repo)
        assert (failed.state, reason(failed)) == (State.FAILED, Reason.HUB_ANSWER_UNSAFE)
        assert_nothing_published(bench, repo)


async def test_a_redirect_to_another_port_of_the_hub_gets_no_bearer(hub: HubEmulator, tmp_path: Path) -> None:
    hub.add_user("ann", "hf_ann", access=["org/m"])
    repo = model(hub, private=True)
    elsewhere = Status(302, headers={"Location": hub.cdn_url + "/somewhere"})
    hub.faults.add(elsewhere, "config.json", origin="hub", times=1)
    credential = Credentials(token="hf_ann").service()
    async with engine_in(tmp_path, hub.endpoint, credential=credential, **PATIENT) as bench:
        assert (await bench.fetch(repo)).state is State.SUCCEEDED
    assert hub.journal.requests("somewhere")
    assert hub.journal.leaks() == []
