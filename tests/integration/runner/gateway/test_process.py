"""The gateway's process and the runner that keeps it."""

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest
from slipway_runner.gateway.control import SOCKET
from slipway_runner.gateway.keeper import Patience
from slipway_runner.gateway.launch import Place, Setup
from slipway_runner.process import pidfd, proc
from slipway_service.state_dir import StartError
from slipway_service.values import ListenAddress

from tests.integration.runner.gateway.kept import (
    CHAT,
    ask,
    gateway,
    model,
    process_of,
    until_answer,
    until_gauge,
)
from tests.integration.runner.gateway.processes import gateways_below, limits
from tests.integration.runner.gateway.upstream import Spoken, Upstream, pieces, stay, yes

pytestmark = pytest.mark.anyio


async def test_it_is_a_process_of_its_own_that_nothing_of_the_runner_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    async with gateway(tmp_path):
        process = process_of(tmp_path)
        found = proc.stat(process.pid)
        assert found is not None
        assert found.session == found.group == process.pid
        environment = proc.environ(process.pid)
        assert "HF_TOKEN" not in environment
        assert environment["PATH"] == os.environ["PATH"]
        assert (tmp_path / SOCKET).stat().st_mode & 0o777 == 0o600
        assert os.readlink(f"/proc/{process.pid}/cwd") == str(Place(tmp_path).folder)
        soft = next(line for line in limits(process.pid) if line.startswith("Max open files")).split()
        assert soft[3] == soft[4]
    assert gateways_below(tmp_path) == []
    assert not (tmp_path / SOCKET).exists()


async def test_the_next_runner_takes_it_over(tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession) -> None:
    backend.answer = pieces(b"one", then=stay)
    async with gateway(tmp_path, model(backend), keep=True) as one:
        before, address = process_of(tmp_path), one.address
        stream = await ask(one, client)
        await one.use()
    async with gateway(tmp_path, complete=False) as one:
        assert (process_of(tmp_path), one.address) == (before, address)
        for _ in range(10):  # by then it would have been told that there are no models
            await one.use()
        async with await ask(one, client) as answer:
            assert answer.status == 200
        assert (await one.use())["uid of m"].in_flight >= 1
        assert await stream.content.readany() == b"one"
        one.complete()
        await until_answer(one, client, 404)
    assert gateways_below(tmp_path) == []


async def test_one_that_was_started_otherwise_is_replaced_and_finishes_its_streams(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    spoken = backend.answer = Spoken()
    async with gateway(tmp_path, model(backend), keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
        stream = await ask(one, client)
        await spoken.say(b"one")
        assert await stream.content.readany() == b"one"
    async with gateway(tmp_path, model(backend), listen=address) as one:
        assert one.address == str(address)
        (now,) = set(gateways_below(tmp_path)) - {before}
        await spoken.say(b"two")
        assert await stream.content.readany() == b"two"
        async with client.get(f"http://{address}/v1/models", headers={"Connection": "close"}) as answer:
            assert answer.status == 200
        with anyio.move_on_after(3):
            await pidfd.exited(before)
            raise AssertionError("it did not wait for its stream")
        spoken.end()
        assert await stream.content.readany() == b""
        with anyio.fail_after(30):
            await pidfd.exited(before)
        assert gateways_below(tmp_path) == [now]


async def test_a_drain_waits_for_the_streams_of_one_that_was_replaced(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    spoken = backend.answer = Spoken()
    async with gateway(tmp_path, model(backend), keep=True) as one:
        address = ListenAddress.parse(one.address)
        stream = await ask(one, client)
        await spoken.say(b"one")
        assert await stream.content.readany() == b"one"
    backend.answer = yes
    async with gateway(tmp_path, model(backend), listen=address) as one, anyio.create_task_group() as tasks:
        assert (await one.use())["uid of m"].in_flight == 1
        drained = anyio.Event()

        async def drain() -> None:
            await one.drain("m", 60)
            drained.set()

        tasks.start_soon(drain)
        await until_answer(one, client, 503)
        await spoken.say(b"two")
        assert await stream.content.readany() == b"two"
        assert not drained.is_set()
        spoken.end()
        with anyio.fail_after(30):
            await drained.wait()
        with anyio.fail_after(30):
            while len(gateways_below(tmp_path)) > 1:
                await anyio.lowlevel.checkpoint()
    assert [name for name in os.listdir(tmp_path) if name.startswith("gateway")] == []


async def test_another_version_or_file_of_keys_is_another_setup(tmp_path: Path) -> None:
    listen = ListenAddress("127.0.0.1", 1)
    setup = Setup(listen=listen)
    assert str(setup) == str(Setup(listen=listen))
    others = [
        replace(setup, version="999"),
        replace(setup, listen=ListenAddress("127.0.0.1", 2)),
        replace(setup, api_key_file=tmp_path / "keys"),
    ]
    assert len({str(setup), *map(str, others)}) == 4


async def test_one_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(tmp_path, keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
    pidfd.send(before, signal.SIGSTOP)
    async with gateway(tmp_path, listen=address):
        assert process_of(tmp_path) != before


async def test_one_whose_socket_was_removed_is_replaced(tmp_path: Path) -> None:
    async with gateway(tmp_path, keep=True) as one:
        before, address = process_of(tmp_path), ListenAddress.parse(one.address)
    (tmp_path / SOCKET).unlink()
    async with gateway(tmp_path, listen=address):
        assert process_of(tmp_path) != before


async def test_a_stale_socket_is_no_gateway(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / SOCKET))
    async with gateway(tmp_path):
        assert len(gateways_below(tmp_path)) == 1


async def test_a_state_directory_may_be_anywhere(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    async with gateway(deep, model(backend)) as one:
        async with await ask(one, client) as answer:
            assert answer.status == 200
        await until_gauge(one, 1, "slipway_gateway_up")


async def test_two_runners_have_two_gateways(tmp_path: Path) -> None:
    async with gateway(tmp_path / "a") as one, gateway(tmp_path / "b") as two:
        assert one.address != two.address
        assert len(gateways_below(tmp_path)) == 2


# What goes wrong.


async def test_one_that_was_killed_is_started_again_on_its_port(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, model(backend)) as one:
        for _ in range(2):
            address = one.address
            before = process_of(tmp_path)
            pidfd.send(before, signal.SIGKILL)
            await pidfd.exited(before)
            await until_answer(one, client, 200)
            assert one.address == address
            assert process_of(tmp_path) != before
    assert gateways_below(tmp_path) == []


async def test_one_that_hangs_while_nothing_changes_is_killed_and_started_again(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    hasty = Patience(look=0.1, reply=2.0, unanswered=3)  # one that is started on a busy host answers in time
    async with gateway(tmp_path, model(backend), patience=hasty) as one:
        before, address = process_of(tmp_path), one.address
        pidfd.send(before, signal.SIGSTOP)
        with anyio.fail_after(60):
            await pidfd.exited(before)
        await until_answer(one, client, 200)
        assert one.address == address
        assert process_of(tmp_path) != before


async def test_a_taken_over_one_that_was_killed_is_started_again_too(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    async with gateway(tmp_path, keep=True):
        pass
    async with gateway(tmp_path, model(backend)) as one:
        pidfd.send(process_of(tmp_path), signal.SIGKILL)
        await until_answer(one, client, 200)


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    async with gateway(tmp_path / "a") as one:
        (tmp_path / "b").mkdir()
        with pytest.raises(StartError) as refused:
            async with gateway(tmp_path / "b", listen=ListenAddress.parse(one.address)):
                pass
        assert str(refused.value) == (
            f"the gateway cannot listen on {one.address}: Address already in use. Stop the other program, or choose "
            "another --gateway-listen"
        )
        assert gateways_below(tmp_path / "b") == []


async def test_a_foreign_address_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign requested address"):
        async with gateway(tmp_path, listen=ListenAddress("192.0.2.1", 0)):
            pass


async def test_one_that_does_not_come_up_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "aiohttp.py").write_text("raise SystemExit('this installation is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(StartError, match=r"does not come up: this installation is broken \(.*gateway\.log\)"):
        async with gateway(tmp_path):
            pass
    assert gateways_below(tmp_path) == []


@pytest.mark.parametrize("content", [None, "\n"])
async def test_a_file_without_keys_is_told_at_the_start(tmp_path: Path, content: str | None) -> None:
    keys = tmp_path / "keys"
    if content is not None:
        keys.write_text(content)
    with pytest.raises(StartError, match="--gateway-api-key-file: "):
        async with gateway(tmp_path, api_key_file=keys):
            pass


async def test_keys_are_on_no_command_line_and_in_no_environment(
    tmp_path: Path, backend: Upstream, client: aiohttp.ClientSession
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-very-secret-key\n")
    async with gateway(tmp_path, model(backend, api_key="backends-key"), api_key_file=keys) as one:
        async with await ask(one, client) as answer:
            assert answer.status == 401
        headers = {"Authorization": "Bearer a-very-secret-key"}
        async with client.post(f"http://{one.address}{CHAT}", json={"model": "m"}, headers=headers) as answer:
            assert answer.status == 200
        process = proc.PROC / str(process_of(tmp_path).pid)
        for name in ("cmdline", "environ"):
            content = (process / name).read_bytes()
            assert b"a-very-secret-key" not in content
            assert b"backends-key" not in content


def test_a_place_is_the_same_by_any_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert Place(tmp_path / "link").instance == Place(tmp_path).instance
