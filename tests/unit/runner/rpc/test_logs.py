"""Where the reading of a log begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from slipway_runner.process.logfile import LogFile
from slipway_runner.rpc.logs import LogReader
from slipway_service.fault import Fault, Reason

pytestmark = pytest.mark.anyio


async def test_an_offset_behind_the_end_is_refused_with_one_to_give_instead(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    log.path.write_bytes(bytes(12_345))
    fleet: Any = SimpleNamespace(get=lambda _: SimpleNamespace(uid="u1"), log=lambda _: log)
    with pytest.raises(Fault) as refused:
        await anext(LogReader(fleet).read("m", 12_346, follow=False))
    assert refused.value.reason is Reason.LOG_OFFSET_INVALID
    assert refused.value.text == "the log ends at 12345; read from there, or from -65536 for its end"
    assert refused.value.facts == {"size": "12345"}
