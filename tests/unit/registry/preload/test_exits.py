"""One table of exit codes for two programs."""

import pytest
from slipway_client.cli import exit_codes
from slipway_client.errors import family
from slipway_registry.preload import exits
from slipway_service.fault import Fault, Reason
from slipway_service.rpc_errors import CODES


def told_by_slipway(reason: Reason) -> int:
    return exit_codes.exit_code(family(reason, CODES[reason])(reason, ""))


@pytest.mark.parametrize("reason", sorted(exits._CODES.keys() - {Reason.DISK_FAULT}))
def test_the_codes_are_those_of_the_slipway_command(reason: Reason) -> None:
    assert exits.exit_code(Fault(reason, "")) == told_by_slipway(reason)


def test_what_is_not_expected_is_a_defect() -> None:
    assert exits.exit_code(Fault(Reason.INTERNAL, "")) == exits.DEFECT == told_by_slipway(Reason.INTERNAL)


def test_the_help_names_each() -> None:
    codes = {0, 130, 143, exits.USAGE, exits.NOT_FOUND, exits.DENIED, exits.TAKEN, exits.DISK, exits.HUB, exits.DAMAGED}
    assert all(f" {code} " in exits.MEANING for code in codes)
