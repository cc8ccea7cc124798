"""What is shown of a model that failed."""

from slipway_runner.backends.base import Task
from slipway_runner.models.record import Model
from slipway_runner.models.spec import RepoSource, Spec
from slipway_runner.models.states import State
from slipway_runner.progress.signals import Cause
from slipway_runner.rpc import to_proto
from slipway_service.fault import Fault, Link, Precondition, Reason
from slipway_service.rpc_errors import from_status


def test_the_error_of_a_model_carries_the_details_of_what_failed() -> None:
    fault = Fault(
        Reason.DISK_FULL,
        "there is no space",
        facts={"free": "1"},
        retry_after=5.0,
        preconditions=(Precondition("DISK", "/hub", "3 needed, 1 free"),),
        link=Link("page", "https://hub/x"),
        resource="models/m",
    )
    failed = Model(
        id="m",
        uid="u",
        spec=Spec(source=RepoSource(repo_id="org/m")),
        state=State.ERROR,
        error=Cause.of(fault),
        task=Task.GENERATE,
        create_time=1.0,
        update_time=1.0,
    )
    shown = from_status(to_proto.model(failed, endpoint="").error)
    assert vars(shown) == vars(fault)
