"""A disk that refuses what the runner writes: no model is stopped for it, and it is told."""

import urllib.request
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from slipway.runner.v1.model_pb2 import Model
from slipway_client import Runner
from slipway_client.specs import model_spec

from tests.faults.runner.host import RunnerHost, is_loaded

pytestmark = pytest.mark.anyio


async def load(host: RunnerHost) -> Model:
    """Load `tree` and wait until it is LOADED."""
    async with Runner.connect(host.service.address) as runner:
        path = host.root / "models" / "tree.gguf"
        await runner.load_model(model_spec(path=str(path), backend="tree", task="generate"), model_id="tree")
    with anyio.fail_after(60):
        while not is_loaded(model := (await host.models())["tree"]):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    return model


def unwritten(host: RunnerHost) -> float:
    """What the metrics say of the journal."""
    with urllib.request.urlopen(f"http://{host.service.addresses['metrics']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("slipway_journal_unwritten_entries "))
    return float(value)


async def test_a_start_that_fails_after_adoption_stops_no_model(tmp_path: Path) -> None:
    host = RunnerHost(tmp_path)
    try:
        await host.start()
        before = await load(host)
        gateway = host.gateways()
        host.service.kill()
        (host.service.state / "address").unlink()
        in_the_way = host.service.state / "address.new"
        in_the_way.mkdir()  # a disk that refuses the file, which is written last

        logged = len(host.service.log)
        with pytest.raises(AssertionError, match="slipway-runner ended"):
            await host.start()
        said = host.service.log[logged:]
        assert "address" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert [one.pid for family in host.families().values() for one in family if one.pid == before.pid]
        assert host.gateways() == gateway

        in_the_way.rmdir()
        await host.start()
        after = (await host.models())["tree"]
        assert (after.uid, after.pid, after.adopted) == (before.uid, before.pid, True)
        assert host.service.stop() == 0
        assert host.families() == {}
        assert host.gateways() == []
    finally:
        if host.service.process is not None:
            host.service.kill()
        host.end()


async def test_a_first_start_that_fails_leaves_no_gateway(tmp_path: Path) -> None:
    host = RunnerHost(tmp_path)
    host.service.state.mkdir()
    (host.service.state / "address.new").mkdir()
    try:
        with pytest.raises(AssertionError, match="slipway-runner ended"):
            await host.start()
        assert host.gateways() == []
    finally:
        host.end()


async def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    host = RunnerHost(tmp_path)
    in_the_way = host.service.state / "journal" / "active.tmp"
    in_the_way.mkdir(parents=True)
    try:
        await host.start()
        async with Runner.connect(host.service.address) as runner:
            adoption = (await runner.get_runner()).adoption_why_not  # what else there is against it on this host
            await load(host)
            with anyio.fail_after(60):
                while "journal" not in (about := await runner.get_runner()).adoption_why_not:  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            assert not about.adoption
            assert "Is a directory" in about.adoption_why_not
            assert await anyio.to_thread.run_sync(unwritten, host) > 0

            in_the_way.rmdir()
            with anyio.fail_after(60):
                while (about := await runner.get_runner()).adoption_why_not != adoption:  # noqa: ASYNC110
                    await anyio.sleep(0.05)
                while await anyio.to_thread.run_sync(unwritten, host):  # noqa: ASYNC110
                    await anyio.sleep(0.05)
        assert host.service.stop() == 0
    finally:
        if host.service.process is not None:
            host.service.kill()
        host.end()
