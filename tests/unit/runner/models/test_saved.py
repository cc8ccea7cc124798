"""What the journal holds comes back as it was."""

import json
import threading
from pathlib import Path
from signal import Signals

import anyio
import pytest
from slipway_runner.backends.base import Format, Found, LaunchPlan, ModelFiles, Settings, Task
from slipway_runner.devices.device import Device, DeviceKind
from slipway_runner.models.plan import Plan
from slipway_runner.models.record import Model, ProcessExit
from slipway_runner.models.saved import Saved, Scribe, Started, Written
from slipway_runner.models.spec import PathSource, RepoSource, Source, Spec
from slipway_runner.models.states import Life, State
from slipway_runner.process.adopt import Trace
from slipway_runner.process.journal import Journal
from slipway_runner.process.members import Family
from slipway_runner.process.proc import ProcessId
from slipway_runner.progress.signals import Cause, LoadStage
from slipway_runner.progress.tracker import LoadProgress
from slipway_service.fault import Reason
from slipway_service.weights.variant import WeightFormat

pytestmark = pytest.mark.anyio

GPU = Device(
    uuid="GPU-1", kind=DeviceKind.CUDA, index=0, name="H", memory_total=9, memory_used=1, memory_free=8, driver="570"
)
FOUND = Found(backend="b", version="1", program=("/x",), kinds=frozenset(DeviceKind), flags=frozenset({"--a"}))


def saved(source: Source) -> Saved:
    spec = Spec(
        source=source, task=Task.EMBED, settings=Settings(context_length=5, device=DeviceKind.CUDA), flags={"a": "1"}
    )
    plan = Plan(
        asked=spec,
        spec=spec,
        name="n",
        commit="c" * 40,
        variant="Q8_0",
        format=WeightFormat.GGUF,
        wanted=("a", "b"),
        weights=("a",),
        size_bytes=7,
        task=Task.EMBED,
        found=FOUND,
        devices=(GPU,),
        needed={"GPU-1": 7},
    )
    files = ModelFiles(name="n", root=Path("/r"), format=Format.GGUF, weights=(Path("/r/a"),), size_bytes=7)
    launch = LaunchPlan(
        found=FOUND,
        files=files,
        task=Task.EMBED,
        served_name="m",
        port=1234,
        api_key="secret",
        scratch=Path("/s"),
        devices=(GPU,),
        environment={"A": "b"},
    )
    family = Family(leader=ProcessId(7, 8), tag="u.1", cgroup=Path("/sys/fs/cgroup/x"))
    return Saved(
        model=Model(
            id="m",
            uid="u",
            spec=spec,
            state=State.LOADING,
            task=Task.EMBED,
            progress=LoadProgress(stage=LoadStage.STARTING, fraction=0.25),
            error=Cause(Reason.LEAKED, "why"),
            exit=ProcessExit(signal=Signals.SIGKILL, last_lines=("a", "b")),
            create_time=1.5,
            update_time=2.5,
        ),
        life=Life(state=State.RESTARTING, run=3, attempt=2, restarts=(1.0, 2.0), retry_at=9.0),
        plan=plan,
        started=Started(trace=Trace(boot_id="boot", family=family), plan=launch, log_start=11, stdin=Path("/run/fifo")),
    )


@pytest.mark.parametrize("source", [RepoSource(repo_id="a/b"), PathSource(path=Path("/models/x.gguf"))])
async def test_a_model_comes_back_equal(tmp_path: Path, source: Source) -> None:
    before = saved(source)
    scribe = Scribe(tmp_path)
    scribe.save(before)
    scribe.save_active({Task.EMBED: "m"})
    await scribe.flush()
    written = scribe.read()
    models, unreadable, active = list(written.models), list(written.unreadable), written.active
    scribe.close()
    assert models == [before]
    assert unreadable == []
    assert active == {Task.EMBED: "m"}


async def test_the_newest_of_each_entry_is_written_and_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    scribe = Scribe(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scribe.run)
        for _ in range(20):
            scribe.save(saved(RepoSource(repo_id="a/b")))
            scribe.forget("u")
            scribe.save(saved(RepoSource(repo_id="c/d")))
            await anyio.lowlevel.checkpoint()
        await scribe.flush()
        tasks.cancel_scope.cancel()
    models = list(scribe.read().models)
    assert [model.model.spec.source for model in models] == [RepoSource(repo_id="c/d")]
    scribe.forget("u")
    with anyio.CancelScope(shield=True):
        await scribe.flush()
    assert scribe.read().models == ()
    scribe.close()


async def test_an_entry_with_other_fields_is_unreadable_and_can_be_set_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("u", {"model": {"id": "m"}})
    journal.close()
    scribe = Scribe(tmp_path)
    written = scribe.read()
    models, unreadable = list(written.models), list(written.unreadable)
    assert models == []
    assert [entry.name for entry in unreadable] == ["u"]
    scribe.set_aside("u")
    assert scribe.read() == Written()
    scribe.close()


async def test_what_a_full_disk_refuses_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scribe = Scribe(tmp_path)
    full = True
    write = Journal.write

    def refuse(self: Journal, name: str, body: object) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(self, name, body)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "write", refuse)
    monkeypatch.setattr("slipway_runner.models.saved._RETRY_SECONDS", 0.01)
    before = saved(RepoSource(repo_id="a/b"))
    scribe.save(before)
    assert not await scribe.flush()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scribe.run)
        await anyio.sleep(0.05)
        full = False
        with anyio.fail_after(30):
            while scribe.read().models != (before,):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    scribe.close()


async def test_what_happens_is_written_while_the_disk_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Journal, "sync", lambda _self, _name: go_on.wait(60))
    scribe = Scribe(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scribe.run)
        with anyio.fail_after(30):
            for number, repo in enumerate(("a/b", "c/d"), 1):
                scribe.save(before := saved(RepoSource(repo_id=repo)))
                while not (tmp_path / f"u.{number}.fresh").exists():  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                assert scribe.read().models == (before,)
        go_on.set()
        tasks.cancel_scope.cancel()
    scribe.close()


@pytest.mark.parametrize("name", ["active", "dormant"])
@pytest.mark.parametrize(
    "body", [{}, {"models": {"paint": "t"}}, {"models": {"embed": 1}}, {"models": []}, {"models": None}], ids=str
)
async def test_what_is_active_in_another_shape_is_set_aside_and_models_are_read(
    tmp_path: Path, name: str, body: dict[str, object]
) -> None:
    scribe = Scribe(tmp_path)
    before = saved(RepoSource(repo_id="a/b"))
    scribe.save(before)
    await scribe.flush()
    (tmp_path / f"{name}.json").write_text(json.dumps({"version": 1, **body}))
    written = scribe.read()
    assert written.models == (before,)
    assert [entry.name for entry in written.unreadable] == [name]
    assert (written.active, written.dormant) == ({}, {})
    scribe.set_aside(name)
    assert scribe.read() == Written(models=(before,))
    scribe.close()
