"""The reading of a log: where it begins, where its pieces are cut, how it ends."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from slipway_runner.process.logfile import READ_BYTES, LogFile
from slipway_runner.rpc.logs import LogReader, LogText
from slipway_service.fault import Fault, Reason

pytestmark = pytest.mark.anyio

EURO = "\N{EURO SIGN}"


class OneModel:
    """A fleet whose only model has this log; it is there, with a process, until a test says otherwise."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self.models = [SimpleNamespace(id="m", uid="u1", pid=1)]

    def get(self, _: str) -> Any:
        return self.models[0]

    def log(self, _: str) -> LogFile:
        return self._log

    def list(self) -> list[Any]:
        return self.models


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "log")


@pytest.fixture
def fleet(log: LogFile) -> Any:
    return OneModel(log)


async def every(pieces: AsyncIterator[LogText]) -> list[LogText]:
    with anyio.fail_after(30):
        return [piece async for piece in pieces]


async def test_an_offset_behind_the_end_is_refused_with_one_to_give_instead(log: LogFile, fleet: Any) -> None:
    log.path.write_bytes(bytes(12_345))
    with pytest.raises(Fault) as refused:
        await anext(LogReader(fleet).read("m", 12_346, follow=False))
    assert refused.value.reason is Reason.LOG_OFFSET_INVALID
    assert refused.value.text == "the log ends at 12345; read from there, or from -65536 for its end"
    assert refused.value.facts == {"size": "12345"}


async def test_pieces_are_cut_between_characters(log: LogFile, fleet: Any) -> None:
    text = EURO * (READ_BYTES // 3 + 10)
    log.path.write_text(text)
    pieces = await every(LogReader(fleet).read("m", 0, follow=False))
    assert len(pieces) == 2
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.next_offset - piece.offset for piece in pieces] == [len(piece.text.encode()) for piece in pieces]
    assert pieces[0].next_offset == pieces[1].offset
    resumed = await every(LogReader(fleet).read("m", pieces[1].offset, follow=False))
    assert resumed == pieces[1:]


async def test_a_character_that_is_half_written_waits_for_its_rest(log: LogFile, fleet: Any) -> None:
    log.path.write_bytes(f"ab{EURO}".encode()[:-1])
    (piece,) = await every(LogReader(fleet).read("m", 0, follow=False))
    assert piece == LogText(0, "ab", 2)
    reading = LogReader(fleet).read("m", 0, follow=True)
    assert await anext(reading) == LogText(0, "ab", 2)
    log.path.write_bytes(f"ab{EURO}".encode())
    with anyio.fail_after(30):
        assert await anext(reading) == LogText(2, EURO, 5)
    await reading.aclose()


async def test_half_a_character_at_the_end_of_all_is_replaced(log: LogFile, fleet: Any) -> None:
    log.path.write_bytes(f"ab{EURO}".encode()[:-1])
    fleet.models[0].pid = 0
    pieces = await every(LogReader(fleet).read("m", 0, follow=False))
    assert pieces == [LogText(0, "ab\N{REPLACEMENT CHARACTER}", 4)]


async def test_what_was_written_before_the_file_was_removed_is_read_to_its_end(log: LogFile, fleet: Any) -> None:
    log.path.write_text("first\n")
    reading = LogReader(fleet).read("m", 0, follow=True)
    assert (await anext(reading)).text == "first\n"
    with log.path.open("a") as file:
        file.write("last\n")
    log.path.unlink()
    fleet.models.clear()
    assert [piece.text for piece in await every(reading)] == ["last\n"]


async def test_a_log_that_begins_later_is_followed_though_it_is_gone_at_once(log: LogFile, fleet: Any) -> None:
    read: list[LogText] = []

    async def follow() -> None:
        read.extend(await every(LogReader(fleet).read("m", None, follow=True)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        with log.path.open("a") as file:
            file.write("all of it\n")
        log.path.unlink()
        fleet.models.clear()
    assert [piece.text for piece in read] == ["all of it\n"]


async def test_logs_that_are_followed_end_when_the_server_drains(log: LogFile, fleet: Any) -> None:
    log.path.write_text("first\n")
    logs = LogReader(fleet)
    reading = logs.read("m", 0, follow=True)
    assert (await anext(reading)).text == "first\n"
    logs.drain()
    with pytest.raises(Fault) as ended:
        await every(reading)
    assert ended.value.reason is Reason.DRAINING
    assert ended.value.retry_after == 1.0
    assert len(await every(logs.read("m", 0, follow=False))) == 1
