import json

from slipway_registry.jobs.records import Failure, PauseReason, Progress, State
from slipway_registry.jobs.serial import dump_download, dump_listing, load_download, load_listing
from slipway_service.fault import Precondition, Reason
from slipway_service.weights.names import Revision

from tests.unit.registry.jobs.samples import LISTING, NOW, download


def test_a_download_comes_back_as_it_was() -> None:
    full = download(
        state=State.PAUSED,
        waiting_for=None,
        pause_reason=PauseReason.CREDENTIAL_REQUIRED,
        retry_time=NOW,
        failure=Failure(
            reason=Reason.REPO_GATED,
            text="ask",
            facts={"a": "b"},
            help_url="https://hub/x",
            retry_after=1.5,
            preconditions=(Precondition("DISK", "/x", "full"),),
        ),
        also=(Revision("v1"),),
        away_since=NOW,
        progress=Progress(done_bytes=1, bytes_per_second=2.5, files_in_flight=("a", "b")),
        start_time=NOW,
        end_time=NOW,
        log_revision=7,
    )
    assert load_download(dump_download(full)) == full
    assert load_download(dump_download(download())) == download()


def test_fields_that_came_later_have_their_defaults() -> None:
    values = json.loads(dump_download(download()))
    del values["mismatches"], values["also"]
    assert load_download(json.dumps(values)) == download()


def test_a_listing_comes_back_as_it_was() -> None:
    assert load_listing(dump_listing(LISTING)) == LISTING


def test_failures_of_an_earlier_version_are_read() -> None:
    failed = download(state=State.FAILED, failure=Failure(reason=Reason.REPO_GATED, text="ask"))
    values = json.loads(dump_download(failed))
    del values["failure"]["retry_after"], values["failure"]["preconditions"]
    assert load_download(json.dumps(values)) == failed
