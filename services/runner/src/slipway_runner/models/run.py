"""One run of a model: from the queue to the first good answer to a real request.

QUEUED → FETCHING → VERIFYING → STARTING → LOADING_WEIGHTS → WARMING_UP. It reports to its supervisor what happens
(`Starting`, `Answered`, `Failed`) and how far it is, and is cancelled by whatever ends the load.
"""

import secrets
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from slipway_service.fault import Fault, Reason

from slipway_runner.backends.base import HttpQuestion, Launch, LaunchPlan, Stdin
from slipway_runner.devices.device import Device
from slipway_runner.models import states
from slipway_runner.models.attached import Attached
from slipway_runner.models.choice import place_again
from slipway_runner.models.facts import read_facts
from slipway_runner.models.saved import Started
from slipway_runner.models.slot import Slot
from slipway_runner.models.snapshots import Fetching, Snapshot
from slipway_runner.models.spec import PathSource
from slipway_runner.models.stall import StallTimer
from slipway_runner.process import members, ports, proc
from slipway_runner.process.adopt import Trace
from slipway_runner.process.members import Family
from slipway_runner.process.ports import Owner
from slipway_runner.process.running import Running
from slipway_runner.process.spawn import Order, spawn
from slipway_runner.progress import kernel
from slipway_runner.progress.kernel import FileWatch
from slipway_runner.progress.signals import Bytes, Cause, Detail, LoadStage, Signal, Source, Stage
from slipway_runner.progress.tracker import Tracker

if TYPE_CHECKING:
    from slipway_runner.models.supervisor import Supervisor

# What a stage is expected to take, in seconds, before a load of this model was ever measured. Only their ratio shows.
_FETCH_BYTES_PER_SECOND = 50_000_000
_VERIFY_SECONDS = 0.05


class Run:
    """One run, for one supervisor."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._on = supervisor
        self._number = supervisor.life.run
        self._means = supervisor.means
        self._plan = supervisor.plan
        self._tracker = self._new_tracker()
        self._stall: StallTimer | None = None
        self._moved = anyio.Event()
        supervisor.listener = self._hear  # at once: what an adopted process said is read before the first step

    async def go(self) -> None:
        """Make it LOADED, or report why that cannot be."""
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._report)
                beside.start_soon(self._watch_stall)
                if self._on.attached is None:
                    await self._wait_for_room()
                    async with Slot(self._means.slots) as slot:
                        await self._reserve()
                        snapshot = await self._fetch(slot)
                        await self._take_again(slot)
                        await self._start(snapshot)
                        await self._until_answered()
                else:  # adopted while it was loading
                    self._means.reservations.claim(self._on.model.uid, self._plan.needed)
                    self._enter(LoadStage.STARTING)
                    self._begin_ceiling()
                    await self._until_answered()
                beside.cancel_scope.cancel()
        except* Fault as faults:
            fault = _first(faults)
            self._fail(Cause.of(fault))
        finally:
            if self._on.listener == self._hear:  # else the next run has begun to listen
                self._on.listener = None

    def _fail(self, cause: Cause) -> None:
        self._on.apply(states.Failed(self._number, cause))

    # Files.

    async def _wait_for_room(self) -> None:
        """Wait until those who make room for it have gone."""
        for leaving in self._on.waits_for:
            self._hear(Detail(f"waiting for {leaving.model.id} to be unloaded"))
            await leaving.ended.wait()

    async def _reserve(self) -> None:
        """Claim its memory, anew in every run. Raises Fault: DEVICE_MEMORY_INSUFFICIENT."""
        devices = await self._devices()
        self._means.reservations.reserve(self._on.model.uid, self._plan.needed, devices)

    async def _reserve_anew(self) -> None:
        """Claim what its files say it needs, if need be elsewhere. Raises Fault: DEVICE_MEMORY_INSUFFICIENT."""
        devices = await self._devices()
        reservations, uid = self._means.reservations, self._on.model.uid
        free = {device.uuid: reservations.available(device, but=uid) for device in devices}
        self._plan = self._on.plan = plan = place_again(self._plan, devices, free)
        reservations.reserve(uid, plan.needed, devices)
        used = tuple(device.uuid for device in plan.devices)
        self._on.model = replace(self._on.model, planned_bytes=plan.planned_bytes, devices=used)

    async def _devices(self) -> tuple[Device, ...]:
        """Those there are, to claim memory of before anything else is awaited.

        A thread is not interrupted: of a run that was ended meanwhile, nobody would give back what it claims now.
        """
        devices = await anyio.to_thread.run_sync(self._means.devices)
        await checkpoint_if_cancelled()
        return devices

    async def _fetch(self, slot: Slot) -> Snapshot:
        """Have its files; while their download does nothing, another load may have the slot."""
        source = self._plan.spec.source
        if isinstance(source, PathSource):
            _, root = await anyio.to_thread.run_sync(self._means.paths.describe, source)
            return Snapshot(root=root)
        self._enter(LoadStage.FETCHING)
        self._wait_at_most(self._patience, None)
        want = self._on.pin.want
        assert want is not None  # it is a repository
        snapshot = await self._means.snapshots.fetch(want, partial(self._fetching, slot))
        self._on.model = replace(
            self._on.model,
            snapshot=snapshot.name,
            registry_bypassed=self._plan.registry_bypassed or snapshot.registry_bypassed,
        )
        return snapshot

    def _fetching(self, slot: Slot, now: Fetching) -> None:
        if now.paused:
            slot.give_up()
        self._hear(Bytes(now.done_bytes, now.total_bytes, Source.REPORTED))
        self._hear(Detail(now.detail))  # an empty one ends what was said before
        if self._stall is not None:
            clock = anyio.current_time()
            self._set_stall(self._stall.suspend(clock) if now.paused else self._stall.resume(clock))

    async def _take_again(self, slot: Slot) -> None:
        if not slot.held:
            self._hear(Detail("downloaded; waiting for a slot"))
            self._stall = None  # nothing is expected of it
            await slot.take()

    async def _verify(self, snapshot: Snapshot) -> None:
        """Whether everything is there, and still what it was taken for now that it can be read."""
        self._enter(LoadStage.VERIFYING)
        missing = [path for path in self._plan.wanted if not (snapshot.root / path).exists()]
        if missing:
            text = f"{self._plan.name} lacks {', '.join(missing)} in {snapshot.root}"
            raise Fault(Reason.MODEL_FILE_MISSING, text, resource=missing[0])
        plan = self._plan
        facts = await anyio.to_thread.run_sync(read_facts, snapshot.root, plan.weights[0], plan.format)
        self._plan = self._on.plan = plan.knowing(facts, self._on.backend)
        why_not = self._on.backend.suits(plan.found, self._plan.files(snapshot.root), plan.task, plan.devices)
        if why_not is not None:
            raise Fault(Reason.BACKEND_UNSUITABLE, f"{plan.backend} cannot run it: {why_not}")
        if self._plan.needed != plan.needed:
            await self._reserve_anew()

    # The process.

    async def _start(self, snapshot: Snapshot) -> None:
        await self._verify(snapshot)
        self._enter(LoadStage.STARTING)
        self._begin_ceiling()
        port = self._means.ports.hold()
        try:
            scratch = self._on.folder / "scratch"
            scratch.mkdir(exist_ok=True, mode=0o700)
            plan = self._plan.launch(
                snapshot.root,
                served_name=self._on.model.id,
                port=port,
                api_key=secrets.token_urlsafe(),
                scratch=scratch,
                house=self._means,
            )
            launch = await anyio.to_thread.run_sync(self._on.backend.launch, plan)
            self._spawn(plan, launch)
        except BaseException:
            self._means.ports.release(port)
            raise

    def _spawn(self, plan: LaunchPlan, launch: Launch) -> None:
        """Start the process. There is no await between being allowed to and being responsible for it."""
        if not self._on.apply(states.Starting(self._number)):
            raise Fault(Reason.INTERNAL, "the load was given up before its process was started")
        log_start = self._on.log.size()
        stdin = self._on.folder / "stdin" if launch.stdin is Stdin.FIFO else None
        order = Order(
            argv=launch.argv,
            environment=launch.env,
            instance=self._means.instance,
            tag=f"{self._on.model.uid}.{self._number}",
            directory=plan.scratch,
            log=self._on.log.path,
            stdin=stdin,
            cgroup_root=self._means.cgroup_root,
        )
        try:
            running = Running.started(spawn(order))
        except OSError as error:
            raise Fault(Reason.BACKEND_UNAVAILABLE, f"{launch.argv[0]} cannot be started: {error}") from error
        trace = Trace(boot_id=proc.boot_id(), family=running.family)
        self._on.model = replace(self._on.model, model_path=str(launch.model_path))
        self._on.attach(running, launch, Started(trace=trace, plan=plan, log_start=log_start, stdin=stdin))
        self._on.save()

    # Readiness.

    async def _until_answered(self) -> None:
        attached = self._on.attached
        assert attached is not None
        launch = attached.launch
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._watch_files, attached)
            await self._until_good(attached, launch.liveness)
            async with anyio.create_task_group() as meanwhile:
                meanwhile.start_soon(self._until_ours, attached)
                meanwhile.start_soon(self._ask_in_force, attached)
                if launch.load is not None:
                    await self._load(attached, launch.load)
                await self._until_good(attached, launch.question)
            beside.cancel_scope.cancel()
        self._finish(attached)

    async def _until_good(self, attached: Attached, question: HttpQuestion) -> None:
        numbers = self._means.numbers
        eager_until = anyio.current_time() + numbers.ask_eagerly
        while True:
            judgement = await self._means.asker.ask(attached.launch, question)
            if judgement.cause is not None:
                raise Fault(judgement.cause.reason, judgement.cause.text)
            if judgement.good:
                return
            pause = numbers.ask_pause if anyio.current_time() < eager_until else numbers.ask_pause_later
            with anyio.move_on_after(pause):
                await attached.ready_hint.wait()
                attached.ready_hint = anyio.Event()

    async def _until_ours(self, attached: Attached) -> None:
        """Make sure that it is our process that answers.

        Raises:
            Fault: PORT_IN_USE when it is another's.
        """
        port, family = attached.launch.port, attached.running.family
        while (found := await anyio.to_thread.run_sync(_owner, port, family)) is not Owner.OURS:
            if found is Owner.FOREIGN:
                raise Fault(Reason.PORT_IN_USE, f"a process that is not the backend's answers on port {port}")
            await anyio.sleep(self._means.numbers.ask_pause)

    async def _load(self, attached: Attached, question: HttpQuestion) -> None:
        launch = attached.launch
        try:
            async for data in self._means.asker.events(launch, question):
                for signal in launch.reader.event(data):
                    if isinstance(signal, Cause):
                        raise Fault(signal.reason, signal.text)
                    attached.hear(signal)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Fault(
                Reason.BACKEND_UNRESPONSIVE, f"the backend broke off its answer while loading: {error}"
            ) from error

    async def _ask_in_force(self, attached: Attached) -> None:
        """Nothing needs it but people who look: no answer is no failure."""
        launch = attached.launch
        if launch.in_force is not None:
            with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                status, body = await self._means.asker.answer(launch, launch.in_force)
                attached.in_force.update(launch.reader.in_force(body) if status == 200 else {})

    def _finish(self, attached: Attached) -> None:
        attached.find_members(members.descendants(attached.running.family.leader))
        now = anyio.current_time()
        took = self._tracker.finish(now)
        self._on.report(self._tracker.progress(now))
        attached.causes.clear()  # what it complained of while loading did not keep it from serving
        self._on.apply(states.Answered(self._number), settings_in_force=dict(attached.in_force))
        self._means.remember(self._history_key, took)

    # Progress.

    def _new_tracker(self) -> Tracker:
        usual = {LoadStage.VERIFYING: _VERIFY_SECONDS, **self._on.backend.usual_seconds(self._plan.size_bytes)}
        if self._plan.commit:
            usual[LoadStage.FETCHING] = self._plan.size_bytes / _FETCH_BYTES_PER_SECOND
        expected = self._means.history.expected(self._history_key, usual)
        return Tracker(expected.seconds, measured=expected.measured, now=anyio.current_time())

    @property
    def _history_key(self) -> str:
        plan = self._plan
        return f"{plan.name}@{plan.commit} {plan.variant} {plan.backend}"

    def _enter(self, stage: LoadStage) -> None:
        self._hear(Stage(stage))

    def _hear(self, signal: Signal) -> None:
        now = anyio.current_time()
        before = self._tracker.stage
        self._tracker.feed(signal, now)
        if self._tracker.stage is not before:
            self._on.report(self._tracker.progress(now))
        if self._stall is not None:
            self._set_stall(self._stall.news(self._tracker.news_at))
        self._moved.set()

    async def _report(self) -> None:
        while True:
            self._on.report(self._tracker.progress(anyio.current_time()))
            with anyio.move_on_after(self._means.numbers.progress_pause):
                await self._moved.wait()
                await anyio.sleep(self._means.numbers.log_pause)  # what comes at once is told at once
            self._moved = anyio.Event()

    async def _watch_files(self, attached: Attached) -> None:
        """What the kernel sees of the weights being read, for backends that say nothing."""
        watch = await anyio.to_thread.run_sync(FileWatch, attached.started.plan.files.weights)
        while True:
            began = anyio.current_time()
            pids = [one.pid for one in members.find(attached.running.family).all]
            for signal in await anyio.to_thread.run_sync(watch.scan, pids):
                attached.hear(signal)
            await anyio.sleep(kernel.next_scan(anyio.current_time() - began))

    # The stall timer.

    @property
    def _patience(self) -> float:
        return self._plan.spec.start_timeout or self._on.backend.start_limits.stall_seconds

    def _begin_ceiling(self) -> None:
        limits = self._on.backend.start_limits
        longer = max(0.0, self._patience - limits.stall_seconds)  # who may be silent for longer may take longer
        ceiling = limits.ceiling_seconds(self._plan.size_bytes) + longer
        self._wait_at_most(self._patience, ceiling)

    def _wait_at_most(self, patience: float, ceiling: float | None) -> None:
        self._set_stall(StallTimer.start(anyio.current_time(), patience=patience, ceiling=ceiling))

    def _set_stall(self, timer: StallTimer) -> None:
        self._stall = timer

    async def _watch_stall(self) -> None:
        while True:
            now = anyio.current_time()
            deadline = self._stall.deadline if self._stall else None
            if self._stall is not None and (why := self._stall.verdict(now)) is not None:
                shown = self._tracker.progress(now)
                raise Fault(Reason.LOAD_STALLED, f"{why}, while {shown.detail}")
            # Deadlines only move away, except when a stage with another patience begins: look again every second.
            await anyio.sleep(1.0 if deadline is None else min(1.0, deadline - now))


def _owner(port: int, family: Family) -> Owner:
    """Who listens there; mostly known without looking at each process of the host. Takes tens of milliseconds."""
    found = ports.owner(port, members.descendants(family.leader))
    # It may be one of the family that has lost its parent.
    return ports.owner(port, members.find(family).all) if found is Owner.FOREIGN else found


def _first(faults: BaseExceptionGroup[Fault]) -> Fault:
    error: BaseException = faults
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Fault)
    return error
